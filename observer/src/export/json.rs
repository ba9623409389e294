//! The stable interface for scripts: one object per snapshot, one per line. The contract:
//!
//! ```text
//! {"time": "2026-11-21T08:00:01.000Z", "start": "…", "interval": 1.0, "host": {"host": "web-1"},
//!  "rows": [{"entity": "cgroup", "labels": {"cgroup": "/a.slice", "id": 7},
//!            "metrics": [{"name": "…", "attributes": {"cpu.mode": "user"}, "value": 12.5, "rate": 0.25},
//!                        {"name": "…", "attributes": {}, "count": 9, "sum": 0.5, "buckets": [[0.001, 8], [null, 1]]}]}],
//!  "events": [{"time": "…", "id": "tcp_retransmits-1", "state": "open", "severity": "warn", "cause": "tcp_retransmits", "entity": "tcp_flow",
//!              "labels": {"local": "10.0.0.1:80", …}, "text": "…"}],
//!  "health": [{"source": "sched", "state": "on", "reason": null, "duration": 0.0004, "dropped": 0}]}
//! ```
//!
//! A counter has `value`, cumulative since `start`, and `rate` per second; a gauge `value`; a text `text`; a histogram, cumulative since
//! `start`, `count`, `sum` and `buckets`: upper bound in seconds (null for the last, which has none) and count, ascending, not cumulative,
//! empty ones left out. An event is a condition that began (`open`), grew worse (`change`) or ended (`close`); its `id` is the same all the
//! while, and `severity` is `info`, `warn` or `critical`. Unknown metrics, rates and labels are left out; the keys of the object itself and of `health` are always there.

use std::io::{self, Write};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::Narrow;
use crate::model::{AnyRow, Attributes, Entity, Event, Histogram, Label, Point, Snapshot, Source, Unit, Value};

/// Writes a snapshot as one line.
pub fn write(out: &mut dyn Write, snapshot: &Snapshot, narrow: &Narrow) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Object { snapshot, narrow }).map_err(io::Error::from)?;
    out.write_all(b"\n")
}

/// RFC 3339 in UTC with milliseconds.
pub fn time(at: SystemTime) -> String {
    // Only a clock outside the years -9999 … 9999 is refused.
    Timestamp::try_from(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

struct Object<'a> {
    snapshot: &'a Snapshot,
    narrow: &'a Narrow,
}

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sample = &self.snapshot.is;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &time(sample.time))?;
        map.serialize_entry("start", &time(sample.start))?;
        map.serialize_entry("interval", &self.snapshot.interval())?;
        map.serialize_entry("host", &LabelMap(&sample.host.labels()))?;
        map.serialize_entry("rows", &Rows(self))?;
        map.serialize_entry("events", &sample.events.iter().map(OneEvent).collect::<Vec<_>>())?;
        map.serialize_entry("health", &sample.sources.iter().map(Health).collect::<Vec<_>>())?;
        map.end()
    }
}

/// Rows are visited, not collected: each is written as it comes by.
struct Rows<'a>(&'a Object<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        let mut result = Ok(());
        self.0.snapshot.each_row(&mut |row| {
            if result.is_ok() && self.0.narrow.keeps(row) {
                result = seq.serialize_element(&OneRow(row));
            }
        });
        result?;
        seq.end()
    }
}

struct OneRow<'a>(&'a dyn AnyRow);

impl Serialize for OneRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("entity", self.0.kind().name())?;
        map.serialize_entry("labels", &LabelMap(&self.0.labels()))?;
        map.serialize_entry("metrics", &Points(self.0))?;
        map.end()
    }
}

struct LabelMap<'a>(&'a [(&'static str, Label<'a>)]);

impl Serialize for LabelMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0 {
            match value {
                Label::Text(text) => map.serialize_entry(name, text.as_ref())?,
                Label::Number(number) => map.serialize_entry(name, number)?,
            }
        }
        map.end()
    }
}

struct Points<'a>(&'a dyn AnyRow);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        let mut result = Ok(());
        self.0.each_point(&mut |point| {
            // JSON has no word for what is not a number; it is as unknown as what was not read.
            let is_known = !matches!(point.value, Value::Gauge(value) if !value.is_finite());
            if result.is_ok() && is_known {
                result = seq.serialize_element(&OnePoint(point));
            }
        });
        result?;
        seq.end()
    }
}

struct OnePoint<'a>(Point<'a>);

impl Serialize for OnePoint<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let point = &self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", point.info.name)?;
        map.serialize_entry("attributes", &AttributeMap(point.attributes))?;
        match &point.value {
            Value::Counter { total, rate } => {
                match point.info.unit {
                    Unit::Seconds => map.serialize_entry("value", &Unit::Seconds.scale(*total))?,
                    // Whole numbers stay exact beyond 2^53.
                    _ => map.serialize_entry("value", total)?,
                }
                if let Some(rate) = rate {
                    map.serialize_entry("rate", rate)?;
                }
            }
            Value::Gauge(value) => map.serialize_entry("value", value)?,
            Value::Text(text) => map.serialize_entry("text", text)?,
            Value::Histogram { now, .. } => histogram(&mut map, now)?,
        }
        map.end()
    }
}

fn histogram<M: SerializeMap>(map: &mut M, now: &Histogram) -> Result<(), M::Error> {
    map.serialize_entry("count", &now.count())?;
    map.serialize_entry("sum", &Unit::Seconds.scale(now.sum))?;
    map.serialize_entry("buckets", &now.buckets().collect::<Vec<_>>())
}

struct AttributeMap(Attributes);

impl Serialize for AttributeMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

struct OneEvent<'a>(&'a Event);

impl Serialize for OneEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut map = serializer.serialize_map(Some(8))?;
        map.serialize_entry("time", &time(event.time))?;
        map.serialize_entry("id", &event.id)?;
        map.serialize_entry("state", event.state.name())?;
        map.serialize_entry("severity", event.severity.name())?;
        map.serialize_entry("cause", event.cause.name())?;
        map.serialize_entry("entity", event.entity.name())?;
        map.serialize_entry("labels", &LabelMap(&event.labels))?;
        map.serialize_entry("text", &event.text)?;
        map.end()
    }
}

struct Health<'a>(&'a Source);

impl Serialize for Health<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let source = self.0;
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("source", source.name)?;
        map.serialize_entry("state", source.state.name())?;
        map.serialize_entry("reason", &source.state.reason())?;
        map.serialize_entry("duration", &source.duration.map(|duration| duration.as_secs_f64()))?;
        map.serialize_entry("dropped", &source.dropped)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::fixture::{narrowed, snapshot};
    use super::*;
    use crate::model::Kind;

    fn written(narrow: &Narrow) -> String {
        let mut out = Vec::new();
        write(&mut out, &snapshot(), narrow).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_contract() {
        let line = written(&Narrow::default());
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "one line");
        let pretty: Json = serde_json::from_str(&line).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&pretty).unwrap());
    }

    #[test]
    fn flows() {
        let mut out = Vec::new();
        let narrow = Narrow { entity: Some(Kind::TcpFlow), cgroup: None };
        write(&mut out, &super::super::fixture::flowing(), &narrow).unwrap();
        let object: Json = serde_json::from_slice(&out).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&object["rows"]).unwrap());
    }

    #[test]
    fn keys_in_the_order_of_the_contract() {
        let line = written(&Narrow { entity: Some(Kind::Cpu), cgroup: Some("/none".into()) });
        let at = |key: &str| line.find(&format!("\"{key}\":")).unwrap();
        let places: Vec<_> = ["time", "start", "interval", "host", "rows", "events", "health"].into_iter().map(at).collect();
        assert!(places.is_sorted(), "{line}");
        assert!(line.contains("\"rows\":[]"));
    }

    #[test]
    fn rows_are_narrowed() {
        let rows = |narrow| {
            let object: Json = serde_json::from_str(&written(&narrow)).unwrap();
            let rows = object["rows"].as_array().unwrap().clone();
            rows.iter().map(|row| format!("{}{}", row["entity"].as_str().unwrap(), row["labels"])).collect::<Vec<_>>()
        };
        narrowed(rows);
    }

    #[test]
    fn numbers_round_trip() {
        let object: Json = serde_json::from_str(&written(&Narrow::default())).unwrap();
        let host = &object["rows"][0]["metrics"];
        let switches = host.as_array().unwrap().iter().find(|point| point["name"] == "observer.host.context_switches").unwrap();
        assert_eq!(switches["value"].as_u64(), Some((1 << 53) + 1), "exact beyond the precision of a double");
    }

    #[test]
    fn times() {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_micros(1_795_248_000_123_999);
        assert_eq!(time(at), "2026-11-21T08:00:00.123Z");
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }
}
