//! observer: who stole my CPU time?
fn main() {}
