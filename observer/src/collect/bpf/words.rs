//! Keys and values of maps as aya takes them: it knows our structures not, but arrays of words.

use std::slice;

use observer_common::pod::{self, Pod};

/// How many words a structure has; it must consist of whole ones.
pub(super) const fn words_of<T: Pod>() -> usize {
    assert!(size_of::<T>().is_multiple_of(8));
    size_of::<T>() / 8
}

/// The structure that the words are.
pub(super) fn from_words<T: Pod, const N: usize>(words: &[u64; N]) -> T {
    let mut value = pod::zeroed();
    pod::bytes_mut(slice::from_mut(&mut value)).copy_from_slice(pod::bytes(words));
    value
}

#[cfg(test)]
mod tests {
    use observer_common::tcp::Flow;

    use super::*;

    #[test]
    fn words_are_the_structure() {
        let words: [u64; words_of::<Flow>()] = [1, 2, 3, 4, 5, 6, 8 << 32 | 7, 10 << 32 | 9, 12 << 32 | 11];
        let flow: Flow = from_words(&words);
        assert_eq!((flow.segments, flow.failures), ([1, 2, 3, 4, 5], 6));
        let last = flow.last;
        let halves = [last.srtt, last.cwnd, last.rto, last.backoff, last.retransmits, last.state];
        assert_eq!(halves, if cfg!(target_endian = "little") { [7, 8, 9, 10, 11, 12] } else { [8, 7, 10, 9, 12, 11] });
    }
}
