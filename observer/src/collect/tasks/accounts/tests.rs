//! Tests of the accounts.

use super::super::seen::Place;
use super::*;

/// Names that tell how often they were asked.
#[derive(Default)]
struct Asked {
    commands: Vec<u32>,
}

impl Names for Asked {
    fn command(&mut self, pid: u32) -> Option<String> {
        self.commands.push(pid);
        Some(format!("command {}", self.commands.len()))
    }

    fn user(&mut self, uid: u32) -> String {
        format!("user {uid}")
    }

    fn cgroup(&self, _: &Seen) -> Option<Arc<str>> {
        Some("/a".into())
    }
}

fn comm(name: &[u8]) -> [u8; 16] {
    let mut comm = [0; 16];
    comm[..name.len()].copy_from_slice(name);
    comm
}

/// A thread of process 10, of which the kernel keeps so much run time of the dead.
fn seen(tid: u32, run: u64, wait: u64, dead: Option<u64>) -> Seen {
    let counts =
        |run| Counts { run: Some(run), voluntary: Some(run / 10), user: Some(run), system: Some(0), ..Counts::default() };
    Seen {
        tid,
        pid: 10,
        ppid: 1,
        start: u64::from(tid),
        leader_start: 10,
        comm: comm(b"worker"),
        uid: Some(0),
        is_kernel: false,
        status: Some(Status::Sleeping),
        counts: Counts { wait: Some(wait), ..counts(run) },
        pending: Some(3),
        dead: dead.map(counts),
        place: Place::Unknown,
    }
}

/// Run time and wait of the only process.
fn update(accounts: &mut Accounts, threads: &[Seen]) -> (u64, u64) {
    let (processes, rows) = accounts.update(threads, &mut Asked::default());
    assert_eq!((processes.len(), rows.len()), (1, threads.len()));
    (processes[0].counts.run.unwrap(), processes[0].counts.wait.unwrap())
}

#[test]
fn a_process_keeps_what_its_dead_threads_did() {
    let mut accounts = Accounts::default();
    assert_eq!(update(&mut accounts, &[seen(10, 100, 5, Some(0)), seen(11, 1000, 50, Some(0))]), (1100, 55));
    // 11 ran 30 more before it died; another was never seen.
    assert_eq!(update(&mut accounts, &[seen(10, 110, 6, Some(1040))]), (1150, 56));
    assert_eq!(update(&mut accounts, &[seen(10, 110, 6, Some(1040)), seen(12, 7, 2, Some(1040))]), (1157, 58));
}

#[test]
fn a_thread_that_dies_while_the_records_are_made() {
    let mut accounts = Accounts::default();
    let before = [seen(10, 100, 0, Some(0)), seen(11, 1000, 0, Some(0)), seen(12, 10, 0, Some(0))];
    assert_eq!(update(&mut accounts, &before).0, 1110);
    // 11 was read and died then: the first record's sums do not have it yet.
    assert_eq!(
        update(&mut accounts, &[seen(10, 100, 0, Some(0)), seen(11, 1000, 0, Some(1000)), seen(12, 11, 0, Some(1000))]).0,
        1111
    );
    // 12 died after the first record and before its own: in neither.
    assert_eq!(update(&mut accounts, &[seen(10, 100, 0, Some(1000))]).0, 1111, "not less than before");
    assert_eq!(update(&mut accounts, &[seen(10, 101, 0, Some(1011))]).0, 1112);
}

#[test]
fn without_the_kernels_sums_growth_is_added_up() {
    let mut accounts = Accounts::default();
    assert_eq!(update(&mut accounts, &[seen(10, 100, 5, None), seen(11, 1000, 50, None)]), (1100, 55));
    assert_eq!(update(&mut accounts, &[seen(10, 110, 6, None)]), (1110, 56));
    assert_eq!(update(&mut accounts, &[seen(10, 110, 6, None), seen(12, 7, 2, None)]), (1117, 58));
    let (processes, _) = accounts.update(&[seen(10, 110, 6, None)], &mut Asked::default());
    assert_eq!((processes[0].counts.user, processes[0].threads, processes[0].pending), (Some(1117), 1, Some(3)));
}

#[test]
fn an_id_that_is_used_again_is_another_process() {
    let mut accounts = Accounts::default();
    update(&mut accounts, &[seen(10, 100, 5, Some(0))]);
    let again = Seen { start: 99, leader_start: 99, ..seen(10, 1, 1, Some(0)) };
    assert_eq!(update(&mut accounts, &[again]), (1, 1));
}

#[test]
fn a_command_line_is_read_once_and_again_after_exec() {
    let (mut accounts, mut names) = (Accounts::default(), Asked::default());
    let mut command = |thread: Seen| {
        let (processes, threads) = accounts.update(&[thread], &mut names);
        assert_eq!(processes[0].identity, threads[0].identity);
        assert_eq!(processes[0].identity.user.as_deref(), Some("user 0"));
        (processes[0].identity.command.clone(), processes[0].comm.to_string())
    };
    let is = |number: usize, comm: &str| (Some(format!("command {number}")), comm.to_owned());
    assert_eq!(command(seen(10, 1, 0, None)), is(1, "worker"));
    assert_eq!(command(seen(10, 2, 0, None)), is(1, "worker"));
    assert_eq!(command(Seen { comm: comm(b"\x1b[2J"), ..seen(10, 2, 0, None) }), is(2, r"\x1b[2J"));
    let kernel = Seen { pid: 2, tid: 2, is_kernel: true, ..seen(2, 0, 0, None) };
    assert_eq!(accounts.update(&[kernel], &mut names).0[0].identity.command, None);
    assert_eq!(names.commands, [10, 10]);
}

#[test]
fn not_all_command_lines_at_once() {
    let (mut accounts, mut names) = (Accounts::default(), Asked::default());
    let many: Vec<Seen> = (1..=LOOKS as u32 + 5).map(|pid| Seen { pid, leader_start: 1, ..seen(pid, 1, 0, None) }).collect();
    accounts.update(&many, &mut names);
    assert_eq!(names.commands.len(), LOOKS);
    accounts.update(&many, &mut names);
    assert_eq!(names.commands.len(), LOOKS + 5);
}

#[test]
fn cpu_time_is_divided_as_the_kernel_does() {
    let mut split = Split::default();
    let mut divide = |run, user, system| {
        let mut counts = Counts { run: Some(run), user: Some(user), system: Some(system), ..Counts::default() };
        split.divide(&mut counts);
        (counts.user.unwrap(), counts.system.unwrap())
    };
    assert_eq!(divide(90, 0, 0), (90, 0), "no tick yet");
    assert_eq!(divide(100, 10, 30), (90, 10), "neither goes back");
    assert_eq!(divide(400, 10, 30), (100, 300));
    assert_eq!(divide(390, 10, 30), (100, 300), "nor does the sum");
    let (user, system) = divide(u64::MAX, u64::MAX / 2, u64::MAX / 2 + 9);
    assert_eq!(user + system, u64::MAX);
}
