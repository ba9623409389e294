//! The buckets of the latency histogram: those of an OpenTelemetry exponential histogram of scale 3, in seconds, so that nothing is
//! converted, and nothing lost, on the way from the kernel to a backend.
//!
//! | index | values (seconds) |
//! | --- | --- |
//! | 0 | up to 2⁻²⁰ (0.95 µs): the exponential histogram's zero bucket |
//! | 1 … 160 | eight buckets an octave from 2⁻²⁰ to 1: bucket `i` holds (2^(−20 + (i−1)/8), 2^(−20 + i/8)] |
//! | 161 … 167 | whole octaves from 1 to 128 |
//! | 168 | more than 128 |
//!
//! A bucket holds its upper bound, as OpenTelemetry has it. Source: OpenTelemetry metrics data model, "ExponentialHistogram".
//! The index is found without floating point and without a division: the exponent, the next three bits of the mantissa, and one
//! comparison with an exact bound (each linear eighth of an octave contains exactly one logarithmic boundary).

/// Eight buckets an octave: OpenTelemetry's scale.
pub const SCALE: u32 = 3;
/// The zero bucket's upper bound is 2^`MIN_EXPONENT` seconds.
pub const MIN_EXPONENT: i32 = -20;
/// Buckets between 2⁻²⁰ s and 1 s.
pub const FINE: usize = 160;
/// Whole octaves between 1 s and 128 s.
pub const OCTAVES: usize = 7;
/// All buckets: zero, fine, octaves, overflow.
pub const BUCKETS: usize = 1 + FINE + OCTAVES + 1;

const SECOND: u64 = 1_000_000_000;

/// 2^(j/8) with 62 fractional bits, rounded down.
const ROOTS: [u64; 8] = [
    4611686018427387904,
    5029079263719320435,
    5484249825272419511,
    5980616842327661685,
    6521908912666391106,
    7112192101001162094,
    7755900482342532474,
    8457869449776733335,
];

/// `UPPER[i]` is the largest whole number of nanoseconds in bucket `i` (0 … 160). What follows is never read; it lets the verifier see
/// that no index is out of bounds.
pub static UPPER: [u64; 257] = {
    let mut upper = [u64::MAX; 257];
    let mut i = 0;
    while i <= FINE {
        let scaled = ROOTS[i % 8] as u128 * SECOND as u128;
        upper[i] = (scaled >> (62 + 20 - i / 8)) as u64;
        i += 1;
    }
    upper
};

/// The bucket of a latency in nanoseconds: `0 … BUCKETS − 1`.
#[inline(always)]
pub fn bucket(ns: u64) -> usize {
    if ns <= UPPER_ZERO {
        return 0;
    }
    if ns > SECOND {
        return above_a_second(ns);
    }
    // Ticks of 2^-30 s (2^30 / 10^9 = 1 + 316718723 / 2^32, to within 10^-11) of the nanosecond before: never too high a bucket, and
    // at most one too low, which the exact bound then settles.
    let before = ns - 1;
    let ticks = before + ((before * 316_718_723) >> 32);
    let exponent = log2(ticks);
    // 2^-20 s is tick 2^10; a value just above it may still floor to 1023 ticks.
    if exponent < 10 {
        return 1;
    }
    // 8 … 15: the first bit and the next three. Cut to the three, the sum below would become an `or`, of which verifiers before 6.10
    // know no bound when neither side is a constant.
    let eighths = ticks >> (exponent - 3);
    // The mask and the minimum change nothing (low < 160); they tell the kernel's verifier so.
    let low = (exponent * 8 + eighths - 88) as usize & 0xff;
    let bucket = low + 1 + usize::from(ns > UPPER[low + 1]);
    if bucket > FINE { FINE } else { bucket }
}

const UPPER_ZERO: u64 = 953;

/// Floor of the binary logarithm of a number in `2^8 … 2^32 − 1`. BPF has no instruction that counts zeros. A table, and not a tree of
/// comparisons: what is loaded is unknown to the kernel's verifier, so it need not follow the rest of the program for every outcome.
#[inline(always)]
fn log2(x: u64) -> u64 {
    let shift = if x >= 1 << 24 {
        24
    } else if x >= 1 << 16 {
        16
    } else {
        8
    };
    shift + u64::from(LOG2[(x >> shift) as usize & 0xff])
}

static LOG2: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 2;
    while i < 256 {
        table[i] = table[i / 2] + 1;
        i += 1;
    }
    table
};

#[inline(always)]
fn above_a_second(ns: u64) -> usize {
    let mut octave = 0;
    while octave < OCTAVES {
        if ns <= SECOND << (octave + 1) {
            break;
        }
        octave += 1;
    }
    1 + FINE + octave
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    /// The definition, in floating point: what the integers must agree with.
    fn reference(ns: u64) -> usize {
        let seconds = ns as f64 / 1e9;
        let log = seconds.log2();
        if log <= -20.0 {
            0
        } else if log <= 0.0 {
            ((log + 20.0) * 8.0).ceil() as usize
        } else if log <= 7.0 {
            160 + log.ceil() as usize
        } else {
            168
        }
    }

    #[test]
    fn bounds_are_powers_of_the_base() {
        assert_eq!(UPPER[0], UPPER_ZERO);
        assert_eq!(UPPER[FINE], SECOND);
        for (i, &upper) in UPPER[..=FINE].iter().enumerate() {
            let exact = 2f64.powf(-20.0 + i as f64 / 8.0) * 1e9;
            assert_eq!(upper, exact.floor() as u64, "bucket {i}");
        }
    }

    #[test]
    fn every_bound_is_the_last_value_of_its_bucket() {
        for (i, &upper) in UPPER[..=FINE].iter().enumerate() {
            assert_eq!(bucket(upper), i, "{upper} ns");
            assert_eq!(bucket(upper + 1), i + 1, "{} ns", upper + 1);
        }
        for octave in 0..=OCTAVES {
            assert_eq!(bucket(SECOND << octave), 160 + octave);
            assert_eq!(bucket((SECOND << octave) + 1), 161 + octave);
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn small_values_without_exception() {
        for ns in 0..300_000 {
            assert_eq!(bucket(ns), reference(ns), "{ns} ns");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200_000))]
        #[test]
        fn agrees_with_floating_point(exponent in 0u32..40, mantissa: u64) {
            let ns = (1u64 << exponent) | (mantissa & ((1 << exponent) - 1));
            prop_assert_eq!(bucket(ns), reference(ns), "{} ns", ns);
        }
    }
}
