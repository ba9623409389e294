//! What the guest said about its tests, beside what was expected.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What `init` writes in front of what it has to say itself.
const MARKER: &str = "observer-vm: ";

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    #[serde(skip)]
    Passes,
    Fails,
    /// It says so itself, with success.
    NotExercised,
}

/// Tests by name.
pub(crate) type Outcomes = BTreeMap<String, Outcome>;

/// The committed list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Skips {
    #[serde(default)]
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Skip {
    test: String,
    /// Without it, every kernel.
    kernels: Option<Vec<String>>,
    /// Only where the guest's two CPUs have no core in common.
    #[serde(default)]
    without_smt: bool,
    outcome: Outcome,
    reason: String,
}

impl Skips {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let skips: Self = toml::from_str(text)?;
        match skips.skip.iter().find(|skip| skip.reason.trim().is_empty()) {
            Some(skip) => bail!("{} has no reason", skip.test),
            None => Ok(skips),
        }
    }

    /// The list for guests whose CPUs are threads of one core.
    pub(crate) fn with_smt(mut self) -> Self {
        self.skip.retain(|skip| !skip.without_smt);
        self
    }

    /// Tests and kernels in it that do not exist: a renamed test must not stay here.
    pub(crate) fn unknown(&self, tests: &[String], kernels: &[&str]) -> Vec<String> {
        let tests = self.skip.iter().map(|skip| &skip.test).filter(|test| !tests.contains(test));
        let named = self.skip.iter().flat_map(|skip| skip.kernels.iter().flatten());
        let kernels = named.filter(|kernel| !kernels.contains(&kernel.as_str()));
        tests.map(|test| format!("test {test}")).chain(kernels.map(|kernel| format!("kernel {kernel}"))).collect()
    }

    fn find(&self, test: &str, kernel: &str) -> Option<&Skip> {
        let here = |skip: &&Skip| skip.kernels.as_ref().is_none_or(|kernels| kernels.iter().any(|name| name == kernel));
        self.skip.iter().filter(|skip| skip.test == test).find(here)
    }

    /// Every difference between what was expected and what happened, as a sentence.
    pub(crate) fn complaints(&self, kernel: &str, expected: &[String], outcomes: &Outcomes) -> Vec<String> {
        let judge = |test: &String| {
            let Some(outcome) = outcomes.get(test) else { return Some(format!("{test} did not run")) };
            match (self.find(test, kernel), outcome) {
                (None, Outcome::Passes) => None,
                (None, Outcome::Fails) => Some(format!("{test} failed")),
                (None, Outcome::NotExercised) => Some(format!("{test} was not exercised, and is not in the list of skips")),
                (Some(skip), outcome) if skip.outcome == *outcome => None,
                (Some(skip), Outcome::Passes) => Some(format!("{test} passed, and is in the list of skips: {}", skip.reason)),
                (Some(skip), outcome) => Some(format!("{test}: {outcome:?}, the list of skips says {:?}", skip.outcome)),
            }
        };
        expected.iter().filter_map(judge).collect()
    }
}

/// What the guest said: its kernel, and the exit status of the tests, if it came so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) kernel: String,
    pub(crate) exit: i32,
}

/// Reads the lines that `init` writes. Nothing but a full one counts: a line may be cut, or follow
/// the kernel's on the same line.
pub(crate) fn marks(said: &str) -> Result<Marks> {
    let find = |name: &str| said.lines().filter_map(|line| line.split_once(MARKER)?.1.strip_prefix(name)).next_back();
    let kernel = find("kernel ").context("the guest did not come as far as its tests")?.to_owned();
    let exit = find("exit ").context("the guest ended before its tests did")?;
    let exit = exit.trim().parse().with_context(|| format!("the guest's exit status is {exit:?}"))?;
    Ok(Marks { kernel, exit })
}

/// Whether the guest came as far as its tests.
pub(crate) fn started(said: &str) -> bool {
    said.contains(MARKER)
}

/// The names in the answer to `--list`.
pub(crate) fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Reads the output of the tests, run one at a time without capture:
///
/// ```text
/// test NAME ...   try 1: failed: WHY
///   try 2: ok: FIGURES
/// ok
/// ```
pub(crate) fn outcomes(said: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut running: Option<(&str, bool)> = None;
    for line in said.lines() {
        let mut rest = line;
        if let Some((name, after)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... ").or(line.split_once(" ...")))
        {
            running = Some((name.trim_end(), false));
            rest = after;
        }
        let Some((name, skipped)) = running.as_mut() else { continue };
        *skipped |= rest.contains(": ok: not exercised");
        let outcome = match rest.trim() {
            "ok" if *skipped => Outcome::NotExercised,
            "ok" => Outcome::Passes,
            "FAILED" => Outcome::Fails,
            _ => continue,
        };
        outcomes.insert((*name).to_owned(), outcome);
        running = None;
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
observer-vm: kernel 5.10.0-32-cloud-amd64

running 4 tests
test a::passes   ...   try 1: ok: 3 waits
ok
test a::is_skipped ...   try 1: ok: not exercised: no v1 hierarchy
ok
test a::fails    ...   try 1: failed: why
[   12.3] kernel: something
  try 2: failed: why
  try 3: failed: why
FAILED
test a::is_cut   ...   try 1: failed
";

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn outcomes_are_read_from_what_the_tests_print() {
        let expected = [("a::fails", Outcome::Fails), ("a::is_skipped", Outcome::NotExercised), ("a::passes", Outcome::Passes)];
        let expected: Outcomes = expected.into_iter().map(|(name, outcome)| (name.to_owned(), outcome)).collect();
        assert_eq!(outcomes(SAID), expected);
        assert_eq!(names("a::passes: test\nb::c: test\n\n2 tests\n"), ["a::passes", "b::c"]);
    }

    #[test]
    fn only_a_marker_with_a_status_is_an_end() {
        assert_eq!(marks("Booting\n").unwrap_err().to_string(), "the guest did not come as far as its tests");
        assert_eq!(marks(SAID).unwrap_err().to_string(), "the guest ended before its tests did");
        let ended = marks(&format!("{SAID}[1.2] noise observer-vm: exit 101\n")).unwrap();
        assert_eq!(ended, Marks { kernel: "5.10.0-32-cloud-amd64".to_owned(), exit: 101 });
        assert!(marks(&format!("{SAID}observer-vm: exit \n")).is_err());
        assert!(started(SAID) && !started("Booting\nPANIC: double fault\n"));
    }

    #[test]
    fn every_difference_from_the_list_is_told() {
        let skips = Skips::parse(
            "[[skip]]\ntest = 'a::is_skipped'\noutcome = 'not-exercised'\nreason = 'no v1'\n\
             [[skip]]\ntest = 'a::fails'\nkernels = ['5.10']\noutcome = 'fails'\nreason = 'old'\n\
             [[skip]]\ntest = 'a::passes'\nkernels = ['6.1']\noutcome = 'fails'\nreason = 'odd'\n",
        )
        .unwrap();
        let expected = list(&["a::passes", "a::is_skipped", "a::fails"]);
        let complaints = |kernel: &str, expected: &[String]| skips.complaints(kernel, expected, &outcomes(SAID));
        assert_eq!(complaints("5.10", &expected), Vec::<String>::new());
        assert_eq!(complaints("6.1", &expected), ["a::passes passed, and is in the list of skips: odd", "a::fails failed"]);
        assert_eq!(complaints("5.10", &list(&["a::is_cut"])), ["a::is_cut did not run"]);
        assert_eq!(skips.unknown(&list(&["a::passes", "a::fails"]), &["5.10"]), ["test a::is_skipped", "kernel 6.1"]);
    }

    #[test]
    fn a_skip_needs_a_reason() {
        let text = "[[skip]]\ntest = 'a'\noutcome = 'fails'\nreason = ' '\n";
        assert!(Skips::parse(text).is_err());
        assert!(Skips::parse("[[skip]]\ntest = 'a'\noutcome = 'passes'\nreason = 'r'\n").is_err());
    }

    #[test]
    fn the_committed_list_can_be_read() {
        let skips = Skips::parse(include_str!("../../vm/skips.toml")).unwrap();
        let known = super::super::kernels::KERNELS.map(|kernel| kernel.name);
        let tests: Vec<String> = skips.skip.iter().map(|skip| skip.test.clone()).collect();
        assert_eq!(skips.unknown(&tests, &known), Vec::<String>::new());
    }
}
