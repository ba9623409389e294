//! The program itself, as root and as an ordinary user.

use super::Test;

/// All tests of the program.
pub(crate) fn trials() -> Vec<Test> {
    vec![]
}
