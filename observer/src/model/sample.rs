//! Samples, and the snapshots that two of them make.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::cpu::Starved;
use super::{
    Allocator, Attributes, Cgroup, Command, Contention, Cpu, Entity, Event, Histogram, Host, Kind, Labels, LongStall, Metric,
    NetNs, Objective, Point, Process, Source, TcpFlow, Thread, Value,
};

/// What the kernel said at one moment: cumulative, in base units. Every list ascends by its entity's key.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When, by the wall clock.
    pub time: SystemTime,
    /// When, by a clock that never jumps; only differences mean something.
    pub uptime: Duration,
    /// When the counting of what observer counts itself began.
    pub start: SystemTime,
    /// The machine.
    pub host: Host,
    /// Logical CPUs.
    pub cpus: Vec<Cpu>,
    /// Control groups.
    pub cgroups: Vec<Cgroup>,
    /// What became of the latency objectives that are configured.
    pub objectives: Vec<Objective>,
    /// The commands that they watch, where that is known; not in any output.
    pub commands: Vec<Command>,
    /// Who waited for whom.
    pub contentions: Vec<Contention>,
    /// The page allocator of the machine, and of its nodes.
    pub memory: Vec<Allocator>,
    /// Long stalls in the allocator that ended since the sample before.
    pub long_stalls: Vec<LongStall>,
    /// CPUs that tasks of real-time priority keep from ordinary ones.
    pub starved: Vec<Starved>,
    /// TCP flows that retransmitted.
    pub tcp_flows: Vec<TcpFlow>,
    /// Network namespaces of those flows.
    pub netns: Vec<NetNs>,
    /// Processes.
    pub processes: Vec<Process>,
    /// Threads.
    pub threads: Vec<Thread>,
    /// Health.
    pub sources: Vec<Source>,
    /// What began, changed or ended since the sample before, in the order in which it was noticed.
    pub events: Vec<Event>,
}

/// Two samples, a moment and the one before it: what screens draw and exports send. It never changes.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Now.
    pub is: Arc<Sample>,
    /// One interval ago; `None` at the start.
    pub was: Option<Arc<Sample>>,
}

impl Snapshot {
    /// Seconds between the two samples.
    pub fn interval(&self) -> Option<f64> {
        let was = self.was.as_ref()?;
        Some(self.is.uptime.checked_sub(was.uptime)?.as_secs_f64())
    }

    /// All entities of a kind, each with what it was one interval ago.
    pub fn rows<E: Entity>(&self) -> impl Iterator<Item = Row<'_, E>> {
        let before = self.was.as_deref().map_or(&[][..], E::of);
        let unborn = self.was.as_deref().and_then(E::unborn);
        let interval = self.interval();
        E::of(&self.is).iter().map(move |is| {
            let key = is.key();
            let was = before.binary_search_by(|other| other.key().cmp(&key)).ok().map(|at| &before[at]).or(unborn);
            Row { is, was, interval }
        })
    }

    /// Visits every row of every kind, in the order of [`Kind::ALL`].
    pub fn each_row(&self, visit: &mut dyn FnMut(&dyn AnyRow)) {
        self.rows::<Host>().for_each(|row| visit(&row));
        self.rows::<Cpu>().for_each(|row| visit(&row));
        self.rows::<Cgroup>().for_each(|row| visit(&row));
        self.rows::<Objective>().for_each(|row| visit(&row));
        self.rows::<Contention>().for_each(|row| visit(&row));
        self.rows::<Allocator>().for_each(|row| visit(&row));
        self.rows::<TcpFlow>().for_each(|row| visit(&row));
        self.rows::<NetNs>().for_each(|row| visit(&row));
        self.rows::<Process>().for_each(|row| visit(&row));
        self.rows::<Thread>().for_each(|row| visit(&row));
        self.rows::<Source>().for_each(|row| visit(&row));
    }
}

/// An entity now and one interval ago.
pub struct Row<'a, E> {
    /// Now.
    pub is: &'a E,
    /// One interval ago; `None` when it was not there (and is not known to have begun since), or there is no former sample.
    pub was: Option<&'a E>,
    /// Seconds between the two.
    pub interval: Option<f64>,
}

impl<E> Clone for Row<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Row<'_, E> {}

impl<'a, E: Entity> Row<'a, E> {
    /// All known points of one metric.
    pub fn points_of(&self, metric: &'static Metric<E>) -> Vec<Point<'a>> {
        let mut points = Vec::new();
        metric.points(self.is, self.was, self.interval, &mut |point| points.push(point));
        points
    }

    /// One number of a metric for a cell or for sorting: the rate of a counter, the value of a gauge; summed over the points whose
    /// attributes contain `attributes` (`&[]` for all of them), of views the widest. `None` when none is known.
    pub fn number(&self, metric: &'static Metric<E>, attributes: Attributes) -> Option<f64> {
        let mut sum = None;
        metric.points(self.is, self.was, self.interval, &mut |point| {
            if !attributes.iter().all(|attribute| point.attributes.contains(attribute)) {
                return;
            }
            let number = match point.value {
                Value::Counter { rate, .. } => rate,
                Value::Gauge(value) => Some(value),
                Value::Histogram { .. } | Value::Text(_) => None,
            };
            if let Some(number) = number {
                add(&mut sum, number, metric);
            }
        });
        sum
    }

    /// What a counter has counted so far, in the metric's unit; summed over its points, of views the widest. `None` when it is unknown.
    pub fn total(&self, metric: &'static Metric<E>) -> Option<f64> {
        let mut sum = None;
        metric.points(self.is, self.was, self.interval, &mut |point| {
            if let Value::Counter { total, .. } = point.value {
                add(&mut sum, point.info.unit.scale(total), metric);
            }
        });
        sum
    }

    /// The `q`-quantile of what a histogram metric took in during the interval, in seconds.
    pub fn quantile(&self, metric: &'static Metric<E>, q: f64) -> Option<f64> {
        self.grown(metric)?.quantile(q)
    }

    /// What a histogram metric took in during the interval.
    pub fn grown(&self, metric: &'static Metric<E>) -> Option<Histogram> {
        let mut found = None;
        metric.points(self.is, self.was, self.interval, &mut |point| {
            if let Value::Histogram { now, before: Some(before) } = point.value {
                found = now.since(before);
            }
        });
        found
    }
}

/// Adds a point to those before it, unless they are views of one thing: then the first stands for all.
fn add<E>(sum: &mut Option<f64>, number: f64, metric: &Metric<E>) {
    match sum {
        Some(sum) if metric.is_partitioned() => *sum += number,
        Some(_) => {}
        None => *sum = Some(number),
    }
}

/// A row whose kind does not matter: what generic outputs loop over.
pub trait AnyRow {
    /// The kind of entity.
    fn kind(&self) -> Kind;
    /// What names it.
    fn labels(&self) -> Labels<'_>;
    /// Visits every known point of every metric.
    fn each_point(&self, visit: &mut dyn FnMut(Point<'_>));
}

impl<E: Entity> AnyRow for Row<'_, E> {
    fn kind(&self) -> Kind {
        E::KIND
    }

    fn labels(&self) -> Labels<'_> {
        self.is.labels()
    }

    fn each_point(&self, visit: &mut dyn FnMut(Point<'_>)) {
        for metric in E::metrics() {
            metric.points(self.is, self.was, self.interval, &mut |point| visit(point));
        }
    }
}
