//! When the run queues are looked at: pure, all times counted from the first sample.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The time that one poll stands for, as nearly as the interval allows.
const EACH: Duration = Duration::from_millis(50);

/// The moments of one interval after the other. Each interval is divided into parts of one length, one at least, and each part has one
/// moment that is as likely to be anywhere in it: so polls are never in step with ticks, timers or whatever else comes at regular times.
#[derive(Debug)]
pub(super) struct Polls {
    random: u64,
    /// The length of a part.
    each: Duration,
    /// Parts of an interval.
    parts: u32,
    begin: Duration,
    /// The next part that has its poll before it.
    part: u32,
    /// Its moment.
    due: Duration,
}

impl Polls {
    /// For intervals of this length, in which observer polls at other moments than when it was started last.
    pub(super) fn new(interval: Duration) -> Polls {
        // The standard library seeds every `RandomState` differently.
        Polls::with_seed(interval, std::hash::RandomState::new().build_hasher().finish())
    }

    fn with_seed(interval: Duration, seed: u64) -> Polls {
        let parts = interval.as_nanos().saturating_add(EACH.as_nanos() / 2) / EACH.as_nanos();
        let parts = u32::try_from(parts).unwrap_or(u32::MAX).max(1);
        let nothing = Duration::ZERO;
        Polls { random: seed, each: interval / parts, parts, begin: nothing, part: parts, due: nothing }
    }

    /// The time that each poll stands for.
    pub(super) fn each(&self) -> Duration {
        self.each
    }

    /// An interval begins, of which something may have passed by now.
    pub(super) fn begin(&mut self, begin: Duration, now: Duration) {
        self.begin = begin;
        self.part = 0;
        self.skip(now);
    }

    /// The moment of the next poll of this interval; one that has passed is late, but still within its part.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.part < self.parts).then_some(self.due)
    }

    /// The poll that was due is done. Parts that passed without one are not made up for.
    pub(super) fn done(&mut self, now: Duration) {
        self.part += 1;
        self.skip(now);
    }

    /// Goes on to the first part that is not over, and draws its moment.
    fn skip(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.begin).as_nanos() / self.each.as_nanos().max(1);
        self.part = self.part.max(u32::try_from(passed).unwrap_or(u32::MAX)).min(self.parts);
        self.due = self.begin + self.each * self.part + self.each.mul_f64(self.draw());
    }

    /// A number in 0 … 1: SplitMix64 (Steele, Lea and Flood 2014).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The upper 53 bits are all that fits, so that it is less than 1.
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The moments of an interval when each poll is in time.
    fn moments(polls: &mut Polls, begin: Duration) -> Vec<Duration> {
        polls.begin(begin, begin);
        let next = |polls: &mut Polls| {
            let due = polls.due()?;
            polls.done(due);
            Some(due)
        };
        std::iter::from_fn(|| next(polls)).collect()
    }

    #[test]
    fn each_part_of_each_interval_has_one() {
        for (interval, parts) in [(10, 1), (49, 1), (60, 1), (100, 2), (1000, 20), (60_000, 1200)] {
            let mut polls = Polls::with_seed(ms(interval), 1);
            assert_eq!(polls.each(), ms(interval) / parts);
            for number in 0..5 {
                let begin = ms(interval) * number;
                let moments = moments(&mut polls, begin);
                assert_eq!(moments.len(), parts as usize, "{interval}");
                for (part, moment) in (0..).zip(moments) {
                    let earliest = begin + polls.each() * part;
                    assert!(earliest <= moment && moment <= earliest + polls.each(), "{interval}: {moment:?} in part {part}");
                }
            }
        }
    }

    #[test]
    fn moments_are_at_no_phase_of_a_tick() {
        let mut polls = Polls::with_seed(ms(1000), 2);
        let mut phases = [0; 4];
        for number in 0..100 {
            for moment in moments(&mut polls, ms(1000) * number) {
                phases[(moment.as_micros() % 4000 / 1000) as usize] += 1;
            }
        }
        // 2,000 moments: 500 each, give or take 19.
        assert!(phases.iter().all(|count| (420..580).contains(count)), "{phases:?}");
        let mut other = Polls::with_seed(ms(1000), 3);
        assert_ne!(moments(&mut polls, Duration::ZERO), moments(&mut other, Duration::ZERO));
    }

    #[test]
    fn parts_that_passed_are_left_out() {
        let mut polls = Polls::with_seed(ms(1000), 4);
        let part = |polls: &Polls| polls.due().map(|due| (due - ms(3000)).as_millis() / 50);
        polls.begin(ms(3000), ms(3120));
        assert_eq!(part(&polls), Some(2), "the reading took long; its moment may have passed");
        polls.done(ms(3149));
        assert_eq!(part(&polls), Some(3));
        polls.done(ms(3400));
        assert_eq!(part(&polls), Some(8));
        polls.done(ms(9000));
        assert_eq!(part(&polls), None);
        polls.begin(ms(9000), ms(9000));
        assert!(polls.due().is_some());
    }
}
