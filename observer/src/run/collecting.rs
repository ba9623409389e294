//! The collector's thread: it reads every source at each boundary of the interval and sends what it found. In between it polls the run queues.

use std::sync::Arc;
use std::sync::mpsc::{self as sync, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use observer_common::sched::{Key, kind};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::polls::Polls;
use crate::collect::Collector;
use crate::config::Config;
use crate::findings::Watch;
use crate::model::objective::Scope;
use crate::model::{Event, Sample, Snapshot};

/// What comes first, and what happens to a snapshot that finds no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begin {
    /// For screens: a snapshot from files alone, then the programs are attached. Without room a snapshot is skipped, and the next one
    /// spans the longer interval.
    AtOnce,
    /// For outputs, which owe every interval: the programs are attached, a first sample is kept, and each snapshot is sent after one
    /// interval. Without room it waits.
    Attached,
}

/// A cgroup that somebody looks at, and that is split by process for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// The one of this key; `None` for none.
    At(Option<Key>),
    /// Those of this path, in every hierarchy, as soon as there are such.
    Path(String),
}

impl Look {
    /// The cgroups that are meant; rows with `~` have no processes.
    fn keys(&self, sample: &Sample) -> Vec<Key> {
        let is_one = |key: &Key| matches!(key.kind(), kind::ROOT | kind::V2 | kind::CPU);
        match self {
            Look::At(key) => key.iter().copied().filter(is_one).collect(),
            Look::Path(path) => {
                sample.cgroups.iter().filter(|cgroup| *cgroup.path == **path).map(|cgroup| cgroup.id).filter(is_one).collect()
            }
        }
    }
}

/// The running thread. Dropping it asks the thread to end; the end of the snapshots' receiver does so, too.
pub(super) struct Collecting {
    thread: JoinHandle<()>,
    /// Carries what somebody looks at; and the other end wakes when this one is gone.
    looks: sync::Sender<Look>,
}

impl Collecting {
    /// Starts the thread.
    pub(super) fn start(config: &Config, begin: Begin) -> anyhow::Result<(Collecting, Receiver<Arc<Snapshot>>)> {
        let Config { interval, bpf, roots, kubelet, events, objectives, .. } = config.clone();
        let commands = objectives.iter().filter_map(|slo| match &slo.scope {
            Scope::Command(name) => Some(name.clone()),
            Scope::Cgroup(_) => None,
        });
        let commands = commands.collect();
        // The collector is made in its thread, so that nothing it holds has to move.
        Collecting::spawn(interval, begin, Watch::new(events, objectives), move || {
            let mut collector = Collector::new(roots);
            collector.watch(commands);
            kubelet.iter().for_each(|url| collector.ask_kubelet(url));
            Sources { collector, bpf }
        })
    }

    fn spawn<S: Sampler>(
        interval: Duration,
        begin: Begin,
        watch: Watch,
        make: impl FnOnce() -> S + Send + 'static,
    ) -> anyhow::Result<(Collecting, Receiver<Arc<Snapshot>>)> {
        /// Enough for a consumer to draw or send one while the next is made.
        const ROOM: usize = 2;
        let (snapshots, receiver) = mpsc::channel(ROOM);
        let (looks, asked) = sync::channel();
        let thread = std::thread::Builder::new()
            .name("collect".into())
            .spawn(move || {
                Loop {
                    sampler: make(),
                    watch,
                    untaken: Vec::new(),
                    interval,
                    polls: Polls::new(interval),
                    begin,
                    snapshots,
                    asked,
                    look: Look::At(None),
                    focused: Vec::new(),
                }
                .run();
            })
            .context("cannot start the collector's thread")?;
        Ok((Collecting { thread, looks }, receiver))
    }

    /// Somebody looks at something else now: the interval that goes on is already counted so.
    pub(super) fn look(&self, at: Look) {
        // A thread that has ended splits nothing any more.
        let _ = self.looks.send(at);
    }

    /// Asks the thread to end and does not wait for it; an error when it had broken down before.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        if self.thread.is_finished() { self.finish() } else { Ok(()) }
    }

    /// Waits for the end of a thread whose receiver is gone; an error when it broke down.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        drop(self.looks);
        self.thread.join().map_err(|_| anyhow::anyhow!("the collector's thread broke down; please report the message above"))
    }
}

/// What the thread reads: all sources, or in tests a stand-in.
trait Sampler {
    /// Something is read before [`Sampler::attach`].
    fn will_attach(&mut self) {}
    fn attach(&mut self);
    /// Splits these cgroups by process from now on.
    fn focus(&mut self, keys: Vec<Key>);
    /// Whether [`Sampler::poll`] finds anything.
    fn can_poll(&self) -> bool {
        false
    }
    /// Looks at the run queues; what is found stands for so much time.
    fn poll(&mut self, _: Duration) {}
    fn collect(&mut self) -> Sample;
}

struct Sources {
    collector: Collector,
    bpf: bool,
}

impl Sampler for Sources {
    fn will_attach(&mut self) {
        if self.bpf {
            self.collector.will_attach();
        }
    }

    fn attach(&mut self) {
        if self.bpf {
            self.collector.attach();
        }
    }

    fn focus(&mut self, keys: Vec<Key>) {
        self.collector.focus(keys);
    }

    fn can_poll(&self) -> bool {
        self.collector.can_poll()
    }

    fn poll(&mut self, time: Duration) {
        self.collector.poll(time);
    }

    fn collect(&mut self) -> Sample {
        self.collector.collect()
    }
}

struct Loop<S> {
    sampler: S,
    watch: Watch,
    /// Events of samples that were skipped: they are told with the next.
    untaken: Vec<Event>,
    interval: Duration,
    polls: Polls,
    begin: Begin,
    snapshots: Sender<Arc<Snapshot>>,
    asked: sync::Receiver<Look>,
    look: Look,
    /// What the look was found to mean.
    focused: Vec<Key>,
}

impl<S: Sampler> Loop<S> {
    fn run(mut self) {
        let Some((began, mut was)) = self.begin() else { return };
        let mut latest = was.clone();
        let mut tick = Duration::ZERO;
        loop {
            tick = next_tick(tick, began.elapsed(), self.interval);
            if !self.wait(began, tick, &latest) {
                return;
            }
            let is = self.collect();
            self.refocus(&is);
            latest = is.clone();
            match self.send(Snapshot { is: is.clone(), was: Some(was.clone()) }) {
                Sent::Taken => was = is,
                Sent::Skipped => self.untaken.clone_from(&is.events),
                Sent::Gone => return,
            }
        }
    }

    /// Waits for the end of the interval, polls meanwhile, and does what is asked; whether anybody wants more.
    fn wait(&mut self, began: Instant, tick: Duration, latest: &Sample) -> bool {
        self.polls.begin(tick.saturating_sub(self.interval), began.elapsed());
        loop {
            let poll = self.polls.due().filter(|due| *due < tick && self.sampler.can_poll());
            match self.asked.recv_timeout(poll.unwrap_or(tick).saturating_sub(began.elapsed())) {
                Ok(look) => {
                    self.look = look;
                    self.refocus(latest);
                }
                Err(RecvTimeoutError::Timeout) if poll.is_some() => {
                    self.sampler.poll(self.polls.each());
                    self.polls.done(began.elapsed());
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    /// Splits what is looked at, by what a path means now.
    fn refocus(&mut self, sample: &Sample) {
        let keys = self.look.keys(sample);
        if keys != self.focused {
            self.focused.clone_from(&keys);
            self.sampler.focus(keys);
        }
    }

    /// A sample with its events, and those that nobody has taken yet.
    fn collect(&mut self) -> Arc<Sample> {
        /// Of a screen that has not been drawn for long, more than this is of no use.
        const MOST: usize = 1000;
        let mut sample = self.sampler.collect();
        sample.events.extend(self.untaken.drain(self.untaken.len().saturating_sub(MOST)..));
        self.untaken.clear();
        self.watch.see(&mut sample);
        Arc::new(sample)
    }

    /// When the first sample was taken, and it; `None` when nobody waits for more.
    fn begin(&mut self) -> Option<(Instant, Arc<Sample>)> {
        match self.begin {
            Begin::AtOnce => self.sampler.will_attach(),
            Begin::Attached => self.sampler.attach(),
        }
        let began = Instant::now();
        let first = self.collect();
        if self.begin == Begin::Attached {
            self.untaken.clone_from(&first.events);
        }
        if self.begin == Begin::AtOnce {
            if let Sent::Gone = self.send(Snapshot { is: first.clone(), was: None }) {
                return None;
            }
            self.sampler.attach();
        }
        Some((began, first))
    }

    fn send(&self, snapshot: Snapshot) -> Sent {
        let snapshot = Arc::new(snapshot);
        match self.begin {
            Begin::Attached => self.snapshots.blocking_send(snapshot).map_or(Sent::Gone, |()| Sent::Taken),
            Begin::AtOnce => match self.snapshots.try_send(snapshot) {
                Ok(()) => Sent::Taken,
                Err(TrySendError::Full(_)) => Sent::Skipped,
                Err(TrySendError::Closed(_)) => Sent::Gone,
            },
        }
    }
}

enum Sent {
    Taken,
    Skipped,
    Gone,
}

/// The next boundary of the interval, all times counted from the first sample: the one after `last`, or, where that has passed, the
/// first to come. So a late reading delays no later one, and missed ones are not made up for.
fn next_tick(last: Duration, now: Duration, interval: Duration) -> Duration {
    let due = last + interval;
    if due > now {
        return due;
    }
    // Intervals are at least 10 ms, so that the number of them fits for a year.
    let passed = now.as_nanos() / interval.as_nanos().max(1);
    interval.saturating_mul(u32::try_from(passed + 1).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::mpsc::{Receiver as Log, Sender as Logger, channel};
    use std::time::SystemTime;

    use super::*;
    use crate::findings::Thresholds;
    use crate::model::cgroup::CpuStat;
    use crate::model::event::Stage;
    use crate::model::tcp::{FlowId, Resent, Who};
    use crate::model::{Cgroup, Host, TcpFlow};

    /// What is asked of a sampler.
    #[derive(PartialEq, Debug)]
    enum Asked {
        Attach,
        Focus(Vec<Key>),
        Collect,
    }
    use Asked::{Attach, Collect, Focus};

    /// The cgroup `/a`, which is there from the second reading on.
    const A: Key = Key::v2(7);

    /// A flow that sent so many segments again.
    fn retransmitting(segments: u64) -> TcpFlow {
        let end = SocketAddr::from(([127, 0, 0, 1], 1));
        TcpFlow {
            who: Who::Flow(FlowId { netns: 1, local: end, peer: end, cgroup: Key::ROOT }),
            cgroup: None,
            holder: None,
            resent: Resent { segments: [segments, 0, 0, 0, 0], failures: 0 },
            inherited: Resent::default(),
            tells_failures: true,
            last: None,
        }
    }

    /// Counts its readings as context switches and as segments sent again, and logs what is asked of it.
    struct Fake(u64, Logger<Asked>);

    impl Sampler for Fake {
        fn attach(&mut self) {
            let _ = self.1.send(Attach);
        }

        fn focus(&mut self, keys: Vec<Key>) {
            let _ = self.1.send(Focus(keys));
        }

        fn collect(&mut self) -> Sample {
            let _ = self.1.send(Collect);
            self.0 += 1;
            let (path, cpu) = (Arc::from("/a"), CpuStat::default());
            let flow = retransmitting(self.0);
            let a = Cgroup {
                id: A,
                path,
                identity: None,
                names: None,
                cpu,
                resources: Arc::default(),
                sched: None,
                stalled: None,
                longest: None,
            };
            Sample {
                time: SystemTime::UNIX_EPOCH,
                uptime: Duration::from_millis(self.0),
                start: SystemTime::UNIX_EPOCH,
                host: Host { context_switches: Some(self.0), ..Host::default() },
                cpus: Vec::new(),
                cgroups: if self.0 > 1 { vec![a] } else { Vec::new() },
                objectives: Vec::new(),
                commands: Vec::new(),
                starved: Vec::new(),
                contentions: Vec::new(),
                netns: Vec::new(),
                long_stalls: Vec::new(),
                tcp_flows: vec![flow],
                processes: Vec::new(),
                memory: Vec::new(),
                threads: Vec::new(),
                sources: Vec::new(),
                events: Vec::new(),
            }
        }
    }

    fn watch() -> Watch {
        Watch::new(Thresholds::default(), Vec::new())
    }

    fn start(begin: Begin, interval: Duration) -> (Collecting, Receiver<Arc<Snapshot>>, Log<Asked>) {
        let (logger, log) = channel();
        let (collecting, receiver) = Collecting::spawn(interval, begin, watch(), move || Fake(0, logger)).unwrap();
        (collecting, receiver, log)
    }

    /// The readings of which the next snapshot is made.
    fn next(receiver: &mut Receiver<Arc<Snapshot>>) -> (Option<u64>, u64) {
        let snapshot = receiver.blocking_recv().unwrap();
        let number = |sample: &Arc<Sample>| sample.host.context_switches.unwrap();
        (snapshot.was.as_ref().map(number), number(&snapshot.is))
    }

    #[test]
    fn ticks() {
        let check = |last, now, expected| {
            let [last, now, expected] = [last, now, expected].map(Duration::from_millis);
            assert_eq!(next_tick(last, now, Duration::from_millis(100)), expected);
        };
        check(0, 0, 100);
        check(0, 30, 100);
        check(100, 130, 200);
        check(100, 199, 200);
        check(100, 200, 300);
        check(100, 450, 500);
    }

    #[test]
    fn outputs_get_every_interval_after_attaching() {
        let (collecting, mut receiver, log) = start(Begin::Attached, Duration::from_millis(10));
        assert_eq!([log.recv(), log.recv()], [Ok(Attach), Ok(Collect)]);
        std::thread::sleep(Duration::from_millis(100));
        let seen: Vec<_> = (0..4).map(|_| next(&mut receiver)).collect();
        assert_eq!(seen, [(Some(1), 2), (Some(2), 3), (Some(3), 4), (Some(4), 5)], "the channel was full, nothing was skipped");
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn screens_get_one_at_once_and_skip_what_they_cannot_take() {
        let (collecting, mut receiver, log) = start(Begin::AtOnce, Duration::from_millis(10));
        assert_eq!([log.recv(), log.recv()], [Ok(Collect), Ok(Attach)]);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!([next(&mut receiver), next(&mut receiver)], [(None, 1), (Some(1), 2)]);
        let (was, is) = next(&mut receiver);
        assert_eq!(was, Some(2), "rates span the skipped interval");
        assert!(is > 3, "{is}");
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn events_of_a_skipped_sample_are_told_with_the_next() {
        let (collecting, mut receiver, log) = start(Begin::AtOnce, Duration::from_millis(10));
        // The flow's burst begins in the seventh sample, and by then the channel is full.
        let collected = log.iter().filter(|asked| *asked == Collect).take(20).count();
        assert_eq!(collected, 20);
        let told = |snapshot: &Arc<Snapshot>| snapshot.is.events.iter().map(|event| event.state).collect::<Vec<_>>();
        let snapshots: Vec<_> = (0..4).map(|_| told(&receiver.blocking_recv().unwrap())).collect();
        assert_eq!(snapshots, [vec![], vec![], vec![Stage::Open], vec![]]);
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn what_is_looked_at_is_split_at_once() {
        let (collecting, receiver, log) = start(Begin::Attached, Duration::from_secs(600));
        assert_eq!([log.recv(), log.recv()], [Ok(Attach), Ok(Collect)]);
        for look in [Some(A), Some(A), None, Some(Key::IDLE), Some(Key::ROOT)] {
            collecting.look(Look::At(look));
        }
        let asked: Vec<_> = log.iter().take(3).collect();
        assert_eq!(asked, [Focus(vec![A]), Focus(Vec::new()), Focus(vec![Key::ROOT])]);
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn a_path_is_split_as_soon_as_it_is_there() {
        let (collecting, receiver, log) = start(Begin::Attached, Duration::from_millis(50));
        collecting.look(Look::Path("/a".into()));
        let before: Vec<_> = log.iter().take_while(|asked| *asked != Focus(vec![A])).collect();
        assert!(before.len() >= 3 && before[0] == Attach && before[1..].iter().all(|asked| *asked == Collect), "{before:?}");
        assert_eq!([log.recv(), log.recv()], [Ok(Collect), Ok(Collect)], "once is enough");
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn a_thread_that_broke_down_is_told() {
        struct Broken;
        impl Sampler for Broken {
            fn attach(&mut self) {}

            fn focus(&mut self, _: Vec<Key>) {}

            fn collect(&mut self) -> Sample {
                panic!("on purpose, by a test")
            }
        }
        let (collecting, mut receiver) = Collecting::spawn(Duration::from_secs(1), Begin::Attached, watch(), || Broken).unwrap();
        assert!(receiver.blocking_recv().is_none());
        assert!(collecting.finish().is_err());
    }

    /// Logs the time that its polls stand for since the last reading.
    struct Polled(Vec<Duration>, Logger<Vec<Duration>>);

    impl Sampler for Polled {
        fn attach(&mut self) {}

        fn focus(&mut self, _: Vec<Key>) {}

        fn can_poll(&self) -> bool {
            true
        }

        fn poll(&mut self, time: Duration) {
            self.0.push(time);
        }

        fn collect(&mut self) -> Sample {
            let _ = self.1.send(std::mem::take(&mut self.0));
            Fake(0, channel().0).collect()
        }
    }

    #[test]
    fn polls_come_between_the_readings_and_what_is_asked_between_the_polls() {
        let (logger, log) = channel();
        let interval = Duration::from_millis(200);
        let (collecting, mut receiver) =
            Collecting::spawn(interval, Begin::Attached, watch(), move || Polled(Vec::new(), logger)).unwrap();
        assert_eq!(log.recv(), Ok(Vec::new()), "the first reading");
        // On a busy machine a part may pass without its poll, but never has it two.
        let mut all = 0;
        for number in 0..5 {
            collecting.look(Look::At(Some(A)));
            assert!(receiver.blocking_recv().is_some());
            let polls = log.recv().unwrap();
            assert!(polls.len() <= 4 && polls.iter().all(|time| *time == interval / 4), "{number}: {polls:?}");
            all += polls.len();
        }
        assert!(all >= 5, "{all} polls of 20");
        drop(receiver);
        collecting.finish().unwrap();
    }

    #[test]
    fn the_thread_ends_at_once() {
        let (collecting, receiver, log) = start(Begin::AtOnce, Duration::from_secs(600));
        assert_eq!(log.recv(), Ok(Collect));
        drop(receiver);
        let asked = Instant::now();
        collecting.finish().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}
