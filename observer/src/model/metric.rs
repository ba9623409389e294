//! A metric, stated once: its name, meaning and unit, and how it is read from its entity.

use super::Histogram;

/// The unit of a metric, as UCUM writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds. A counter's raw value is in nanoseconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// CPUs, as a limit counts them.
    Cpus,
    /// A share of one.
    Ratio,
    /// A count of things, named in the singular without braces: `run` is UCUM's `{run}`.
    Count(&'static str),
}

impl Unit {
    /// The UCUM annotation: `s`, `By`, `{cpu}`, `1`, `{run}`.
    pub fn ucum(self) -> String {
        match self {
            Unit::Seconds => "s".into(),
            Unit::Bytes => "By".into(),
            Unit::Cpus => "{cpu}".into(),
            Unit::Ratio => "1".into(),
            Unit::Count(thing) => format!("{{{thing}}}"),
        }
    }

    /// A counter's raw number in this unit: nanoseconds become seconds, everything else stays as it is.
    pub fn scale(self, raw: u64) -> f64 {
        match self {
            Unit::Seconds => raw as f64 / 1e9,
            _ => raw as f64,
        }
    }
}

/// What kind of time series a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Only grows; leaves as a cumulative monotonic sum and shows as a rate.
    Counter,
    /// A value now.
    Gauge,
    /// A distribution; leaves as an exponential histogram.
    Histogram,
    /// Words.
    Text,
}

impl Shape {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
            Shape::Histogram => "histogram",
            Shape::Text => "text",
        }
    }
}

/// What is the same whatever entity a metric is read from.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// OpenTelemetry name.
    pub name: &'static str,
    /// Column header: at most 10 characters.
    pub title: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Unit.
    pub unit: Unit,
    /// Kind of series.
    pub shape: Shape,
}

/// Attribute names and values that tell a metric's points apart.
pub type Attributes = &'static [(&'static str, &'static str)];

/// One point of a metric: its attributes and how to read it. `None` means unknown.
pub struct Part<E, V> {
    /// What tells this point from the metric's others.
    pub attributes: Attributes,
    /// Reads the value.
    pub read: fn(&E) -> Option<V>,
}

/// A part of a whole, both cumulative: the ratio over an interval is the growth of one over the growth of the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The part.
    pub part: u64,
    /// The whole.
    pub whole: u64,
}

/// A counter whose total does not grow as fast as what it counts happens: what goes on enters the total when it ends, and what another
/// entity leaves enters it all at once.
pub struct Paced<E> {
    /// What tells this point from the metric's others.
    pub attributes: Attributes,
    /// Cumulative.
    pub total: fn(&E) -> Option<u64>,
    /// What grows as it happens, cumulative and in the same unit: the rate is its growth.
    pub pace: fn(&E) -> Option<u64>,
}

/// A value for each combination of attribute values. Counts that are 0 never occurred and are left out.
pub struct Cross<E, V> {
    /// All combinations, in the order of the index.
    pub attributes: fn() -> &'static [Attributes],
    /// The value with an index.
    pub read: fn(&E, usize) -> Option<V>,
}

/// The same thing as observer counts it and as the kernel does, both cumulative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Residual {
    /// By observer.
    pub ours: u64,
    /// By the kernel.
    pub kernels: u64,
}

/// How a metric is read. The points of one metric partition it, those of [`Read::Views`] excepted: their sum is the total.
pub enum Read<E: 'static> {
    /// Cumulative; nanoseconds when the unit is seconds.
    Counter(&'static [Part<E, u64>]),
    /// Cumulative as well; the rate has a basis of its own.
    Paced(&'static [Paced<E>]),
    /// Cumulative, with too many points to list them.
    Cross(Cross<E, u64>),
    /// Cumulative views of one thing and not parts of it, the widest first: that one stands for all where one number is asked for.
    Views(&'static [Part<E, u64>]),
    /// A value now, in the metric's unit.
    Gauge(&'static [Part<E, f64>]),
    /// Values now, with too many points to list them.
    CrossGauge(Cross<E, f64>),
    /// A ratio over the interval between two samples; unknown when the whole did not grow.
    Ratio(&'static [Part<E, Share>]),
    /// By what part observer's count of the interval exceeds the kernel's; unknown where the kernel's did not grow.
    Residual(&'static [Part<E, Residual>]),
    /// A distribution of seconds.
    Histogram(fn(&E) -> Option<&Histogram>),
    /// Words.
    Text(fn(&E) -> Option<String>),
}

/// A metric of the entity `E`.
pub struct Metric<E: 'static> {
    /// Name, title, sentence, unit.
    pub info: Info,
    /// How to read it.
    pub read: Read<E>,
}

impl<E> Metric<E> {
    /// Whether its points are parts of a whole, which may be summed.
    pub fn is_partitioned(&self) -> bool {
        !matches!(self.read, Read::Views(_))
    }

    /// States a metric; its shape follows from how it is read.
    pub const fn new(name: &'static str, title: &'static str, unit: Unit, help: &'static str, read: Read<E>) -> Metric<E> {
        let shape = match read {
            Read::Counter(_) | Read::Paced(_) | Read::Cross(_) | Read::Views(_) => Shape::Counter,
            Read::Gauge(_) | Read::CrossGauge(_) | Read::Ratio(_) | Read::Residual(_) => Shape::Gauge,
            Read::Histogram(_) => Shape::Histogram,
            Read::Text(_) => Shape::Text,
        };
        Metric { info: Info { name, title, help, unit, shape }, read }
    }

    /// The attribute sets of all points, in order; a histogram or a text has one, without attributes.
    pub fn attributes(&self) -> Vec<Attributes> {
        match self.read {
            Read::Counter(parts) | Read::Views(parts) => parts.iter().map(|part| part.attributes).collect(),
            Read::Cross(Cross { attributes, .. }) => attributes().to_vec(),
            Read::CrossGauge(Cross { attributes, .. }) => attributes().to_vec(),
            Read::Gauge(parts) => parts.iter().map(|part| part.attributes).collect(),
            Read::Ratio(parts) => parts.iter().map(|part| part.attributes).collect(),
            Read::Residual(parts) => parts.iter().map(|part| part.attributes).collect(),
            Read::Paced(parts) => parts.iter().map(|part| part.attributes).collect(),
            Read::Histogram(_) | Read::Text(_) => vec![&[]],
        }
    }

    /// Visits every known point, given the entity now and one interval ago.
    pub fn points<'a>(&'a self, is: &'a E, was: Option<&'a E>, interval: Option<f64>, visit: &mut dyn FnMut(Point<'a>)) {
        let mut emit = |attributes, value| visit(Point { info: &self.info, attributes, value });
        match self.read {
            Read::Counter(parts) | Read::Views(parts) => {
                for part in parts {
                    let Some(total) = (part.read)(is) else { continue };
                    let before = was.and_then(part.read);
                    emit(part.attributes, Value::Counter { total, rate: rate(self.info.unit, total, before, interval) });
                }
            }
            Read::Paced(parts) => {
                for part in parts {
                    let Some(total) = (part.total)(is) else { continue };
                    let before = was.and_then(part.pace);
                    let rate = (part.pace)(is).and_then(|now| rate(self.info.unit, now, before, interval));
                    emit(part.attributes, Value::Counter { total, rate });
                }
            }
            Read::Cross(Cross { attributes, read }) => {
                for (index, attributes) in attributes().iter().enumerate() {
                    let Some(total) = read(is, index).filter(|total| *total > 0) else { continue };
                    let before = was.and_then(|was| read(was, index));
                    emit(attributes, Value::Counter { total, rate: rate(self.info.unit, total, before, interval) });
                }
            }
            Read::Gauge(parts) => {
                for part in parts {
                    if let Some(value) = (part.read)(is) {
                        emit(part.attributes, Value::Gauge(value));
                    }
                }
            }
            Read::CrossGauge(Cross { attributes, read }) => {
                for (index, attributes) in attributes().iter().enumerate() {
                    if let Some(value) = read(is, index) {
                        emit(attributes, Value::Gauge(value));
                    }
                }
            }
            Read::Ratio(parts) => {
                for part in parts {
                    let (Some(is), Some(was)) = ((part.read)(is), was.and_then(part.read)) else { continue };
                    let grown = (is.part.checked_sub(was.part), is.whole.checked_sub(was.whole));
                    if let (Some(part_grown), Some(whole)) = grown
                        && whole > 0
                    {
                        emit(part.attributes, Value::Gauge(part_grown as f64 / whole as f64));
                    }
                }
            }
            Read::Residual(parts) => {
                for part in parts {
                    let (Some(is), Some(was)) = ((part.read)(is), was.and_then(part.read)) else { continue };
                    if let (Some(ours), Some(kernels)) = (is.ours.checked_sub(was.ours), is.kernels.checked_sub(was.kernels))
                        && kernels > 0
                    {
                        emit(part.attributes, Value::Gauge((ours as f64 - kernels as f64) / kernels as f64));
                    }
                }
            }
            Read::Histogram(read) => {
                if let Some(now) = read(is) {
                    emit(&[], Value::Histogram { now, before: was.and_then(read) });
                }
            }
            Read::Text(read) => {
                if let Some(text) = read(is) {
                    emit(&[], Value::Text(text));
                }
            }
        }
    }
}

/// Growth per second in the metric's unit; unknown without a former value, or where a counter went backwards.
fn rate(unit: Unit, total: u64, before: Option<u64>, interval: Option<f64>) -> Option<f64> {
    let grown = total.checked_sub(before?)?;
    let interval = interval.filter(|interval| *interval > 0.0)?;
    Some(unit.scale(grown) / interval)
}

/// One value of one metric of one entity.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// The metric.
    pub info: &'a Info,
    /// What tells it from the metric's other points.
    pub attributes: Attributes,
    /// The value.
    pub value: Value<'a>,
}

/// A point's value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// A cumulative count.
    Counter {
        /// Raw: nanoseconds when the unit is seconds ([`Unit::scale`]).
        total: u64,
        /// Growth per second, in the metric's unit.
        rate: Option<f64>,
    },
    /// A value now, in the metric's unit.
    Gauge(f64),
    /// A distribution, cumulative, and what it was one interval ago.
    Histogram {
        /// Since counting began.
        now: &'a Histogram,
        /// One interval ago.
        before: Option<&'a Histogram>,
    },
    /// Words.
    Text(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_went_backwards_has_no_rate() {
        assert_eq!(rate(Unit::Seconds, 3_000_000_000, Some(1_000_000_000), Some(2.0)), Some(1.0));
        assert_eq!(rate(Unit::Count("run"), 5, Some(7), Some(1.0)), None);
        assert_eq!(rate(Unit::Count("run"), 5, None, Some(1.0)), None);
        assert_eq!(rate(Unit::Count("run"), 5, Some(1), None), None);
        assert_eq!(rate(Unit::Count("run"), 5, Some(1), Some(0.0)), None);
    }

    #[test]
    fn a_rate_may_have_its_own_basis() {
        static RUN: Metric<(u64, u64)> = Metric::new(
            "observer.test.run",
            "run",
            Unit::Count("run"),
            "A test.",
            Read::Paced(&[Paced { attributes: &[], total: |run| Some(run.0), pace: |run| Some(run.0 + run.1) }]),
        );
        let value = |was: (u64, u64), is: (u64, u64)| {
            let mut found = None;
            RUN.points(&is, Some(&was), Some(2.0), &mut |point| {
                if let Value::Counter { total, rate } = point.value {
                    found = Some((total, rate));
                }
            });
            found.unwrap()
        };
        assert_eq!(value((10, 0), (10, 4)), (10, Some(2.0)), "it goes on");
        assert_eq!(value((10, 4), (16, 0)), (16, Some(1.0)), "it ended, and is not counted twice");
    }

    #[test]
    fn a_residual_has_a_sign() {
        static RESIDUAL: Metric<Residual> = Metric::new(
            "observer.test.residual",
            "residual",
            Unit::Ratio,
            "A test.",
            Read::Residual(&[Part { attributes: &[], read: |both| Some(*both) }]),
        );
        let value = |ours, kernels| {
            let mut found = None;
            RESIDUAL.points(&Residual { ours, kernels }, Some(&Residual { ours: 10, kernels: 1000 }), None, &mut |point| {
                if let Value::Gauge(value) = point.value {
                    found = Some(value);
                }
            });
            found
        };
        assert_eq!((value(109, 1100), value(111, 1100)), (Some(-0.01), Some(0.01)));
        assert_eq!(value(109, 1000), None);
    }

    #[test]
    fn a_ratio_is_of_the_interval() {
        static RATIO: Metric<Share> = Metric::new(
            "observer.test.ratio",
            "ratio",
            Unit::Ratio,
            "A test.",
            Read::Ratio(&[Part { attributes: &[], read: |share| Some(*share) }]),
        );
        let value = |was: (u64, u64), is: (u64, u64)| {
            let mut found = None;
            let share = |(part, whole)| Share { part, whole };
            RATIO.points(&share(is), Some(&share(was)), Some(1.0), &mut |point| {
                if let Value::Gauge(value) = point.value {
                    found = Some(value);
                }
            });
            found
        };
        assert_eq!(value((90, 100), (93, 110)), Some(0.3));
        assert_eq!(value((90, 100), (90, 100)), None, "nothing happened: unknown, not 1");
        assert_eq!(value((90, 100), (10, 10)), None, "went backwards");
    }
}
