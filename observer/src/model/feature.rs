//! What a kernel and the privileges on it allow: the rows of `observer doctor`.

/// Something that observer can do where it is allowed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Short name: `privileges`, `btf`, …
    pub name: &'static str,
    /// Whether it can be done here.
    pub state: Availability,
    /// What is lost without it; one sentence.
    pub lost: &'static str,
    /// What was found out about it, beside its state: places, sizes.
    pub found: Option<String>,
    /// What to do about it; `None` when it is available or nothing helps.
    pub remedy: Option<String>,
}

/// Whether something can be done here. Reasons are whole sentences without a full stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Availability {
    /// It can.
    Available,
    /// It can, with something missing.
    Degraded(String),
    /// It cannot.
    Missing(String),
}

impl Availability {
    /// The lower-case word of every output.
    pub fn name(&self) -> &'static str {
        match self {
            Availability::Available => "available",
            Availability::Degraded(_) => "degraded",
            Availability::Missing(_) => "missing",
        }
    }

    /// Why it is not simply available.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Availability::Available => None,
            Availability::Degraded(reason) | Availability::Missing(reason) => Some(reason),
        }
    }
}
