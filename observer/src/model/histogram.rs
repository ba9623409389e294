//! A latency distribution with the shared buckets of [`observer_common::latency`].

use observer_common::latency::{BUCKETS, FINE, MIN_EXPONENT, OCTAVES, SCALE, bucket};

/// Number of counts of [`Histogram::octaves`].
pub const BY_OCTAVE: usize = 1 + (FINE >> SCALE) + OCTAVES + 1;

/// Counts by bucket and the exact sum.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    /// Counts, indexed as [`observer_common::latency::bucket`] does.
    pub counts: [u64; BUCKETS],
    /// Sum of all values in nanoseconds, exact.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: [0; BUCKETS], sum: 0 }
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<_> = self.buckets().collect();
        f.debug_struct("Histogram").field("sum", &self.sum).field("buckets", &counts).finish()
    }
}

impl Histogram {
    /// Number of values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds another distribution to this one.
    pub fn add(&mut self, other: &Histogram) {
        for (to, from) in self.counts.iter_mut().zip(&other.counts) {
            *to += from;
        }
        self.sum += other.sum;
    }

    /// What came since `before`; `None` when this is not its continuation.
    pub fn since(&self, before: &Histogram) -> Option<Histogram> {
        let mut grown = Histogram { counts: [0; BUCKETS], sum: self.sum.checked_sub(before.sum)? };
        for (grown, (is, was)) in grown.counts.iter_mut().zip(self.counts.iter().zip(&before.counts)) {
            *grown = is.checked_sub(*was)?;
        }
        Some(grown)
    }

    /// Buckets that hold something, ascending: upper bound in seconds (`None` for more than 128 s) and count, not cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<f64>, u64)> {
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, count)| (upper(index), *count))
    }

    /// Counts by octave: up to 2⁻²⁰ s (0.95 µs), octave by octave to 128 s, and above. [`octave_upper`] has their bounds.
    pub fn octaves(&self) -> [u64; BY_OCTAVE] {
        let (fine, coarse) = self.counts[1..].split_at(FINE);
        let fine = fine.chunks(1 << SCALE).map(|octave| octave.iter().sum());
        let mut octaves = [0; BY_OCTAVE];
        for (to, count) in octaves.iter_mut().zip(std::iter::once(self.counts[0]).chain(fine).chain(coarse.iter().copied())) {
            *to = count;
        }
        octaves
    }

    /// An upper bound of the `q`-quantile (`0 ≤ q ≤ 1`) in seconds: the bound of the bucket where it lies, at most 9.1 % above the
    /// true value below one second. `None` without values, infinity above 128 s.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (bound, count) in self.buckets() {
            seen += count;
            if seen >= rank {
                return Some(bound.unwrap_or(f64::INFINITY));
            }
        }
        None
    }

    /// The values above a bound in nanoseconds.
    pub fn above(&self, bound: u64) -> Above {
        let index = bucket(bound);
        // All that the bucket holds is met where the bound is its last value.
        let holds = bucket(bound.saturating_add(1)) == index;
        Above { above: self.counts[index + 1..].iter().sum(), beside: if holds { self.counts[index] } else { 0 } }
    }

    /// As OpenTelemetry and Prometheus have it: the count of the zero bucket, the index of the first bucket of the exponential ones
    /// ([`SCALE`]) and their counts without gap or trailing zeros.
    ///
    /// Octaves above one second are held at the top eighth of each octave, what is above 128 s as if it were 128–256 s: quantiles
    /// there are too high by less than a factor of two, counts and sum are exact.
    pub fn exponential(&self) -> Exponential {
        const PER_OCTAVE: usize = 1 << SCALE;
        let mut dense = [0u64; FINE + (OCTAVES + 1) * PER_OCTAVE];
        dense[..FINE].copy_from_slice(&self.counts[1..=FINE]);
        for (octave, count) in self.counts[1 + FINE..].iter().enumerate() {
            dense[FINE + octave * PER_OCTAVE + PER_OCTAVE - 1] = *count;
        }
        let first = dense.iter().position(|count| *count > 0).unwrap_or(0);
        let end = dense.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        Exponential {
            zero_count: self.counts[0],
            offset: MIN_EXPONENT * PER_OCTAVE as i32 + first as i32,
            counts: dense[first..end].to_vec(),
        }
    }
}

/// Which values of a distribution are above a bound.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Above {
    /// Those in buckets that lie above it.
    pub above: u64,
    /// Those in the bucket in which the bound lies: nobody can tell which of them are.
    pub beside: u64,
}

/// The part, 0 to 1, of the bucket in which a bound in nanoseconds lies that is above it, if values are spread evenly over the logarithm:
/// the interpolation that Prometheus uses in exponential buckets. Linear in the zero bucket; all of the last one, which has no end.
pub fn part_above(bound: u64) -> f64 {
    let index = bucket(bound);
    let Some(upper) = upper(index) else { return 1.0 };
    let bound = bound as f64 / 1e9;
    let part = match index.checked_sub(1).and_then(self::upper) {
        Some(lower) => (upper / bound).ln() / (upper / lower).ln(),
        None => 1.0 - bound / upper,
    };
    part.clamp(0.0, 1.0)
}

/// The upper bound of a bucket in seconds; `None` for the last, which has none.
pub fn upper(index: usize) -> Option<f64> {
    let exponent = if index <= FINE {
        f64::from(MIN_EXPONENT) + index as f64 / f64::from(1u32 << SCALE)
    } else if index <= FINE + OCTAVES {
        (index - FINE) as f64
    } else {
        return None;
    };
    Some(exponent.exp2())
}

/// The upper bound of one of [`Histogram::octaves`] in seconds; `None` for the last, which has none.
pub fn octave_upper(index: usize) -> Option<f64> {
    (index + 1 < BY_OCTAVE).then(|| f64::from(MIN_EXPONENT + index as i32).exp2())
}

/// The bound below which a value is in the zero bucket, in seconds.
pub fn zero_threshold() -> f64 {
    f64::from(MIN_EXPONENT).exp2()
}

/// An exponential histogram of scale 3: bucket `offset + i` holds (2^((offset+i)/8), 2^((offset+i+1)/8)] seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exponential {
    /// Values up to [`zero_threshold`].
    pub zero_count: u64,
    /// Index of the first count.
    pub offset: i32,
    /// Counts from there on.
    pub counts: Vec<u64>,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A distribution of these waits, in nanoseconds.
    pub(in crate::model) fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        for ns in values {
            histogram.counts[bucket(*ns)] += 1;
            histogram.sum += ns;
        }
        histogram
    }

    #[test]
    fn buckets_ascend_and_sum_to_the_count() {
        let histogram = of(&[10, 5_000, 5_001, 1_000_000_000, 3_000_000_000, 1 << 40]);
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 6);
        assert_eq!(buckets.first(), Some(&(Some(2f64.powi(-20)), 1)));
        assert!(buckets.contains(&(Some(1.0), 1)), "{buckets:?}");
        assert!(buckets.contains(&(Some(4.0), 1)), "{buckets:?}");
        assert_eq!(buckets.last(), Some(&(None, 1)));
    }

    #[test]
    fn octaves_lose_no_count() {
        for (index, bound) in (0..BUCKETS).map(|index| (index, upper(index))) {
            let mut histogram = Histogram::default();
            histogram.counts[index] = 1;
            let octaves = histogram.octaves();
            let at = octaves.iter().position(|count| *count > 0).unwrap();
            assert_eq!(octaves.iter().sum::<u64>(), 1);
            let below = at.checked_sub(1).map_or(0.0, |at| octave_upper(at).unwrap());
            let within = bound.is_none_or(|bound| bound > below) && octave_upper(at).is_none_or(|upper| bound.unwrap() <= upper);
            assert!(within, "bucket {index} in octave {at}");
        }
        assert_eq!((octave_upper(BY_OCTAVE - 2), octave_upper(BY_OCTAVE - 1)), (Some(128.0), None));
    }

    #[test]
    fn exponential_loses_no_count() {
        let histogram = of(&[10, 953, 954, 5_000, 999_999_999, 1_000_000_000, 1_000_000_001, 100_000_000_000, 1 << 40]);
        let exponential = histogram.exponential();
        assert_eq!(exponential.zero_count, 2);
        assert_eq!(exponential.offset, -160);
        assert_eq!(exponential.zero_count + exponential.counts.iter().sum::<u64>(), histogram.count());
        // (2^(-1/8), 1] is index -1; (1, 2] is held at its top eighth, index 7; more than 128 s at 63.
        let at = |index: i32| exponential.counts[(index - exponential.offset) as usize];
        assert_eq!((at(-1), at(7), at(63)), (2, 1, 1));
        assert_eq!(Histogram::default().exponential().counts, Vec::<u64>::new());
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let histogram = of(&[1_000, 2_000, 3_000, 4_000_000]);
        let p50 = histogram.quantile(0.5).unwrap();
        assert!((2e-6..2e-6 * 1.091).contains(&p50), "{p50}");
        let p99 = histogram.quantile(0.99).unwrap();
        assert!((4e-3..4e-3 * 1.091).contains(&p99), "{p99}");
        assert_eq!(of(&[u64::MAX >> 1]).quantile(0.5), Some(f64::INFINITY));
    }

    #[test]
    fn values_on_both_sides_of_a_bound() {
        let histogram = of(&[10, 953, 990_000, 1_000_000, 1_010_000, 1_100_000, 3_000_000_000, 1 << 40]);
        let check = |bound, above, beside| assert_eq!(histogram.above(bound), Above { above, beside }, "{bound}");
        check(1_000_000, 3, 3);
        check(500, 6, 2);
        // The end of a bucket: nothing is in doubt.
        check(953, 6, 0);
        check(1_000_000_000, 2, 0);
        check(128_000_000_000, 1, 0);
        check(3_000_000_000, 1, 1);
        check(u64::MAX, 0, 1);
    }

    #[test]
    fn a_bucket_is_divided_by_the_logarithm() {
        let check = |bound, part: f64| assert!((part_above(bound) - part).abs() < 1e-6, "{bound}: {}", part_above(bound));
        check(2_000_000_000, 0.0);
        check(2_828_427_125, 0.5);
        check(1_000_000_001, 1.0);
        check(1_000_000_000, 0.0);
        check(0, 1.0);
        check(953, 1.0 - 953.0 / 953.674_316);
        check(u64::MAX, 1.0);
    }

    #[test]
    fn since_refuses_what_is_no_continuation() {
        let (was, is) = (of(&[1_000]), of(&[1_000, 2_000]));
        assert_eq!(is.since(&was).unwrap().count(), 1);
        assert!(was.since(&is).is_none());
    }
}
