//! Maps by the kernel's ids. Thousands of look-ups a reading, and nobody outside chooses the keys so that they collide: a multiplication
//! does for a hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by ids.
pub(in crate::collect) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Ids>>;

/// Mixes the few words of a key.
#[derive(Default)]
pub(in crate::collect) struct Ids(u64);

impl Hasher for Ids {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        // 2^64 by the golden ratio; the product's upper half is the well-mixed one, the map looks at both ends.
        self.0 = (self.0.rotate_left(32) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn ids_in_a_row_spread() {
        let hash = |tid: u32, start: u64| BuildHasherDefault::<Ids>::default().hash_one((tid, start));
        let all: Vec<u64> = (0..4096).map(|tid| hash(tid, 10_532_312_173_463 + u64::from(tid / 64) * 1_000_000)).collect();
        for bits in [|hash: u64| hash & 4095, |hash: u64| hash >> 52] {
            let distinct: std::collections::HashSet<u64> = all.iter().map(|hash| bits(*hash)).collect();
            assert!(distinct.len() > 2400, "chance would give 2589: {}", distinct.len());
        }
    }
}
