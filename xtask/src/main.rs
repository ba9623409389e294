//! Every developer task of observer.
fn main() {}
