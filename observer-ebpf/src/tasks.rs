//! Question: what does every thread do right now, and what did it do so far?
//!
//! Hook: none. `iter/task`: the daemon reads a file, and the kernel calls this once for each thread of the PID namespace in which the
//! file was opened.
//! Cost: nothing between the readings; in them 0.6–1 µs a thread, nearly half of it the kernel's walk, against 35 µs from `/proc`.
//! Needs: BTF, CONFIG_SCHED_INFO, CONFIG_FAIR_GROUP_SCHED; kernel 5.8.
//! Lost without it: waits and runs that have not ended yet, migrations of threads; `/proc` gives the rest, slowly.
//!
//! Nothing is locked: a thread may run, move or die while its record is made, so that a record is of one moment only as far as each
//! number is.
#![allow(unsafe_code, reason = "only the two attributes that make the entry point; nothing here is done unsafely")]

use core::ffi::c_void;

use observer_common::tasks::Task as Record;

use crate::kernel::Iteration;

/// `bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task)`. aya has no macro for it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn tasks(context: *mut c_void) -> i32 {
    let iteration = Iteration(context);
    let Some(task) = iteration.task() else { return 0 };
    let run_queue = task.cfs_rq().run_queue();
    let signal = task.signal();
    let record = Record {
        pid: task.pid() as u32,
        tgid: task.tgid(),
        ppid: task.ppid(),
        flags: task.flags(),
        state: task.state(),
        exit_state: task.exit_state(),
        on_cpu: task.on_cpu(),
        cpu: run_queue.cpu(),
        uid: task.uid(),
        prio: task.prio(),
        comm: task.comm(),
        start_time: task.start_time(),
        leader_start: task.leader().start_time(),
        utime: task.utime(),
        stime: task.stime(),
        sum_exec_runtime: task.sum_exec_runtime(),
        run_delay: task.run_delay(),
        pcount: task.pcount(),
        last_queued: task.last_queued(),
        last_arrival: task.last_arrival(),
        clock: run_queue.clock(),
        nvcsw: task.nvcsw(),
        nivcsw: task.nivcsw(),
        nr_migrations: task.nr_migrations(),
        key: task.css_set().cgroup().key.0,
        throttled_since: task.throttled_since(),
        dead_utime: signal.utime(),
        dead_stime: signal.stime(),
        dead_runtime: signal.runtime(),
        dead_nvcsw: signal.nvcsw(),
        dead_nivcsw: signal.nivcsw(),
    };
    iteration.write(&record);
    0
}
