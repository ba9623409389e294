//! Retransmissions against the kernel's own counters.
//!
//! Each test has a network namespace of its own, whose counters begin at zero and count nothing else. Packets are lost by filters that the
//! receiving sockets have attached: exactly there, and without any tool.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use aya::programs::{ProgramInfo, loaded_programs};
use aya::sys::{Stats, enable_stats};
use observer::collect::{Collector, Roots};
use observer::findings::{Burst, Thresholds, Watch};
use observer::model::event::Stage;
use observer::model::tcp::Resent;
use observer::model::{AnyRow, Event, Label, Row, Sample, Source, State, TcpFlow};
use observer_common::tcp::Cause;
use rustix::process::{Resource, Rlimit};
use socket2::{Domain, SockFilter, Socket, Type};

use super::cgroups::{TestCgroup, v2_root};
use super::sched::{load, untraced};
use super::storms::resident;
use super::{Test, health};

/// All tests of this family.
pub(crate) fn trials() -> Vec<Test> {
    vec![
        ("tcp::timeouts_agree_with_the_kernel", || in_namespace(|space| timeouts(space, V4))),
        ("tcp::timeouts_of_ipv6_agree_with_the_kernel", || in_namespace(|space| timeouts(space, V6))),
        ("tcp::lost_syns_agree_with_the_kernel", || in_namespace(|space| lost_syns(space, V4))),
        ("tcp::lost_syn_acks_agree_with_the_kernel", || in_namespace(|space| lost_syn_acks(space, V6))),
        ("tcp::fast_retransmits_agree_with_the_kernel", || in_namespace(|space| lossy_bulk(space, V4))),
        ("tcp::fast_retransmits_of_ipv6_agree_with_the_kernel", || in_namespace(|space| lossy_bulk(space, V6))),
        ("tcp::readings_in_between_lose_nothing", || in_namespace(|space| read_in_between(space, true))),
        ("tcp::readings_in_between_lose_nothing_without_a_barrier", || in_namespace(|space| read_in_between(space, false))),
        ("tcp::a_namespace_has_its_row", || in_namespace(row_of_a_namespace)),
        ("tcp::a_burst_is_an_event", || in_namespace(burst)),
        ("tcp::mapped_addresses_are_ipv4", || in_namespace(mapped)),
        ("tcp::failed_attempts_are_counted_apart", || in_namespace(failures)),
        ("tcp::what_finds_no_place_is_counted", || in_namespace(many_flows)),
        ("tcp::a_hundred_thousand_flows_pass_through", || in_namespace(passing_flows)),
    ]
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// No test measures time here; this only ends what hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A network namespace of this thread, with nothing but a loopback device, and observer.
struct Space {
    inode: u64,
    collector: Collector,
}

/// Runs a test in a fresh namespace, which goes with its thread and sockets.
fn in_namespace(test: fn(&mut Space) -> Result<String, String>) -> Result<String, String> {
    let run = move || test(&mut Space::new()?);
    thread::spawn(run).join().map_err(|_| "the test's thread panicked".to_owned())?
}

impl Space {
    fn new() -> Result<Space, String> {
        #[expect(
            deprecated,
            reason = "dangerous only where threads stop sharing memory or descriptors, which these go on to do"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).map_err(say("unshare"))?;
        // A frame of loopback holds 64 KiB otherwise, and nothing would ever have several segments.
        ip("link set lo mtu 1500 up")?;
        let inode = fs::metadata("/proc/thread-self/ns/net").map_err(say("ns/net"))?.ino();
        let mut collector = Collector::new(Roots::default());
        collector.attach();
        let sample = collector.collect();
        let state = &source(&sample)?.state;
        if *state == health::tcp_attached()? {
            Ok(Space { inode, collector })
        } else {
            Err(format!("the family is not on: {state:?}"))
        }
    }

    /// Those flows of a sample that are of this namespace.
    fn flows<'a>(&self, sample: &'a Sample) -> Vec<&'a TcpFlow> {
        let is_here = |flow: &&TcpFlow| label(flow, "netns") == Some(self.inode.to_string());
        sample.tcp_flows.iter().filter(is_here).collect()
    }

    /// What was counted in this namespace, when the kernel has nothing more to send again.
    fn counted(&mut self) -> Result<(Sample, Resent), String> {
        let before = counters()?;
        let sample = self.collector.collect();
        if counters()? != before {
            return Err("something was sent again during the reading".into());
        }
        let mut sum = Resent::default();
        self.flows(&sample).into_iter().for_each(|flow| sum.add(&flow.resent));
        Ok((sample, sum))
    }

    /// Compares what was counted with the kernel's counters, cause by cause as far as the kernel tells them.
    fn agrees(&mut self) -> Result<(Sample, Resent, Counters), String> {
        let (sample, ours) = self.counted()?;
        let kernels = counters()?;
        let of = |cause: Cause| ours.segments[cause as usize];
        let same = |what: &str, ours: u64, kernels: u64| {
            if ours == kernels { Ok(()) } else { Err(format!("{what}: {ours}, the kernel says {kernels}")) }
        };
        same("segments", ours.total(), kernels.segments - kernels.failed)?;
        same("fast", of(Cause::Fast), kernels.fast)?;
        same("syn and synack", of(Cause::Syn) + of(Cause::SynAck), kernels.syn)?;
        // A probe may also carry new data, and an expiry may resend nothing; in the Loss state more is resent than the timer did.
        let (probes, timeouts) = (of(Cause::Probe), of(Cause::Timeout));
        if probes > kernels.probes || timeouts < kernels.slow_start || timeouts > kernels.slow_start + kernels.timeouts * 45 {
            return Err(format!("probes {probes}, timeouts {timeouts}; the kernel: {kernels:?}"));
        }
        Ok((sample, ours, kernels))
    }
}

/// The kernel's counters of this thread's network namespace.
#[derive(PartialEq, Debug)]
struct Counters {
    segments: u64,
    failed: u64,
    timeouts: u64,
    probes: u64,
    fast: u64,
    syn: u64,
    slow_start: u64,
}

fn counters() -> Result<Counters, String> {
    counters_of("thread-self")
}

/// Those of the namespace in which a task is.
fn counters_of(task: &str) -> Result<Counters, String> {
    let read = |file: &str| {
        let path = format!("/proc/{task}/net/{file}");
        fs::read_to_string(&path).map_err(say(&path))
    };
    let text = read("snmp")? + &read("netstat")?;
    let lines: Vec<&str> = text.lines().collect();
    let find = |wanted: &str| {
        lines.chunks_exact(2).find_map(|pair| {
            let mut columns = pair[0].split(' ').zip(pair[1].split(' '));
            columns.find(|(name, _)| *name == wanted)?.1.parse().ok()
        })
    };
    let find = |wanted: &str| find(wanted).ok_or(format!("the kernel does not tell {wanted}"));
    Ok(Counters {
        segments: find("RetransSegs")?,
        failed: find("TCPRetransFail")?,
        timeouts: find("TCPTimeouts")?,
        probes: find("TCPLossProbes")?,
        fast: find("TCPFastRetrans")?,
        syn: find("TCPSynRetrans")?,
        slow_start: find("TCPSlowStartRetrans")?,
    })
}

/// Nothing that comes is let through.
fn deaf(socket: &Socket) -> Result<(), String> {
    socket.attach_filter(&[RETURN_NOTHING]).map_err(say("filter"))
}

/// About one packet of so many is lost.
fn loses_one_of(socket: &Socket, many: u32) -> Result<(), String> {
    // Ancillary data 56 (SKF_AD_RANDOM) at SKF_AD_OFF, -0x1000: a random number.
    let random = SockFilter::new(0x20, 0, 0, 0xffff_f000 + 56);
    let is_at_least = SockFilter::new(0x35, 0, 1, u32::MAX / many);
    let all = SockFilter::new(0x06, 0, 0, u32::MAX);
    socket.attach_filter(&[random, is_at_least, all, RETURN_NOTHING]).map_err(say("filter"))
}

/// `BPF_RET | BPF_K` with 0 bytes.
const RETURN_NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

fn hears(socket: &Socket) -> Result<(), String> {
    socket.detach_filter().map_err(say("filter"))
}

fn listener(address: IpAddr) -> Result<(Socket, SocketAddr), String> {
    let socket = socket(address)?;
    socket.bind(&SocketAddr::new(address, 0).into()).map_err(say("bind"))?;
    socket.listen(1024).map_err(say("listen"))?;
    let name = socket.local_addr().map_err(say("name"))?.as_socket().ok_or("no address")?;
    Ok((socket, name))
}

fn socket(address: IpAddr) -> Result<Socket, String> {
    Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, None).map_err(say("socket"))
}

/// Both ends of a connection.
fn pair(address: IpAddr) -> Result<(Socket, Socket), String> {
    let (listener, name) = listener(address)?;
    let client = socket(address)?;
    client.connect(&name.into()).map_err(say("connect"))?;
    Ok((client, listener.accept().map_err(say("accept"))?.0))
}

/// Waits until the kernel has counted enough.
fn until(enough: impl Fn(&Counters) -> bool) -> Result<(), String> {
    waited_for("the kernel's counters", || Ok(enough(&counters()?)))
}

fn waited_for(what: &str, mut happened: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let began = Instant::now();
    while !happened()? {
        if began.elapsed() > DEADLINE {
            return Err(format!("waited too long for {what}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One segment is lost until its timer has expired a few times: a probe, and a timeout for each expiry.
fn timeouts(space: &mut Space, address: IpAddr) -> Result<String, String> {
    // A socket belongs to the cgroup in which its process was when it made it.
    let home = own_cgroup()?;
    let cgroup = TestCgroup::new(&v2_root().ok_or("no v2 hierarchy")?, "tcp").map_err(say("cgroup"))?;
    enter(&cgroup.path())?;
    let both = pair(address);
    enter(&home)?;
    let (mut client, mut server) = both?;
    deaf(&server)?;
    client.write_all(b"x").map_err(say("write"))?;
    until(|kernel| kernel.timeouts >= 3)?;
    hears(&server)?;
    server.read_exact(&mut [0]).map_err(say("read"))?;
    let (sample, ours, kernels) = space.agrees()?;
    let of = |cause: Cause| ours.segments[cause as usize];
    if of(Cause::Timeout) != kernels.timeouts || of(Cause::Probe) != 1 {
        return Err(format!("{ours:?}, the kernel: {kernels:?}"));
    }
    let [flow] = space.flows(&sample)[..] else { return Err(format!("{} flows", sample.tcp_flows.len())) };
    let end = |socket: io::Result<socket2::SockAddr>| socket.ok().and_then(|end| end.as_socket()).map(|end| end.to_string());
    let ends = (end(client.local_addr()), end(client.peer_addr()));
    if ends != (label(flow, "local"), label(flow, "peer")) {
        return Err(format!("{:?} is called {:?}", ends, AnyRow::labels(&row(flow))));
    }
    if label(flow, "cgroup") != told(cgroup.path())? {
        return Err(format!("cgroup {:?}, not {}", label(flow, "cgroup"), cgroup.path()));
    }
    let process = health::flows_have_processes()?.then(|| std::process::id().to_string());
    if label(flow, "pid") != process {
        return Err(format!("pid {:?}, not {process:?}", label(flow, "pid")));
    }
    let last = flow.last.ok_or("nothing is known of it")?;
    let (srtt, rto) = (last.kernel.srtt, u64::from(last.kernel.rto) * last.tick);
    // On loopback: a round trip took less than a second; the timeout began at 200 ms or more and was doubled with each expiry.
    let doubled = 200_000_000 << last.kernel.backoff;
    if last.state() != "established" || srtt == 0 || srtt > 1_000_000 || last.kernel.retransmits == 0 || rto < doubled / 2 {
        return Err(format!("{last:?}"));
    }
    Ok(format!("{} by timeout and 1 probe, rtt {srtt} µs, rto {} ms", of(Cause::Timeout), rto / 1_000_000))
}

/// The listener does not hear the first SYNs.
fn lost_syns(space: &mut Space, address: IpAddr) -> Result<String, String> {
    let (listener, name) = listener(address)?;
    deaf(&listener)?;
    let client = socket(address)?;
    begin(&client, name)?;
    until(|kernel| kernel.syn >= 2)?;
    hears(&listener)?;
    let _server = listener.accept().map_err(say("accept"))?;
    let (sample, ours, kernels) = space.agrees()?;
    let [flow] = space.flows(&sample)[..] else { return Err(format!("{} flows", sample.tcp_flows.len())) };
    let last = flow.last.ok_or("nothing is known of it")?;
    if ours.segments[Cause::Syn as usize] != kernels.syn
        || last.state() != "syn_sent"
        || label(flow, "peer") != Some(name.to_string())
    {
        return Err(format!("{flow:?}"));
    }
    Ok(format!("{} SYNs", kernels.syn))
}

/// The client does not hear the first SYN-ACKs: it sends its SYN again, the listener its answer.
fn lost_syn_acks(space: &mut Space, address: IpAddr) -> Result<String, String> {
    let (listener, name) = listener(address)?;
    let client = socket(address)?;
    deaf(&client)?;
    begin(&client, name)?;
    until(|kernel| kernel.syn >= 4)?;
    hears(&client)?;
    let _server = listener.accept().map_err(say("accept"))?;
    let (sample, ours, kernels) = space.agrees()?;
    let own = |flow: &&&TcpFlow| label(flow, "local") == Some(name.to_string());
    let flows = space.flows(&sample);
    let server = flows.iter().find(own).ok_or("no flow of the listener's")?;
    let of = |cause: Cause| ours.segments[cause as usize];
    if of(Cause::SynAck) == 0 || of(Cause::Syn) == 0 || server.resent.segments[Cause::SynAck as usize] != of(Cause::SynAck) {
        return Err(format!("{ours:?}, the kernel: {kernels:?}"));
    }
    if server.last.map(|last| last.state()) != Some("syn_recv") || label(server, "cgroup") != told(own_cgroup()?)? {
        return Err(format!("{server:?}"));
    }
    Ok(format!("{} SYNs and {} SYN-ACKs", of(Cause::Syn), of(Cause::SynAck)))
}

fn begin(client: &Socket, to: SocketAddr) -> Result<(), String> {
    client.set_nonblocking(true).map_err(say("socket"))?;
    match client.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        other => Err(format!("connect: {other:?}")),
    }
}

/// Much data to one who loses some of it. Ends when all of it has come.
fn bulk(address: IpAddr, many: usize) -> Result<(Socket, Socket), String> {
    let (mut client, mut server) = pair(address)?;
    loses_one_of(&server, 40)?;
    let writer = thread::spawn(move || client.write_all(&vec![7; many]).map(|()| client));
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    while received < many {
        received += server.read(&mut buffer).map_err(say("read"))?;
    }
    hears(&server)?;
    let client = writer.join().map_err(|_| "the writer panicked")?.map_err(say("write"))?;
    // The last acknowledgement may still be on its way.
    thread::sleep(Duration::from_millis(300));
    Ok((client, server))
}

fn lossy_bulk(space: &mut Space, address: IpAddr) -> Result<String, String> {
    let _both = bulk(address, 24 << 20)?;
    let (_, ours, kernels) = space.agrees()?;
    if kernels.fast < 20 {
        return Err(format!("too little was lost: {kernels:?}"));
    }
    Ok(format!("by cause {:?}, {} failed; the kernel: {kernels:?}", ours.segments, ours.failures))
}

/// Four connections lose segments while their flows are taken from the kernel's map again and again.
fn read_in_between(space: &mut Space, barrier: bool) -> Result<String, String> {
    if !barrier {
        space.collector.without_barrier();
    }
    let enough = AtomicBool::new(false);
    let lossy = || {
        loop {
            let both = bulk(V4, 8 << 20)?;
            if enough.load(Ordering::Relaxed) {
                return Ok::<_, String>(both);
            }
        }
    };
    let (readings, before) = thread::scope(|scope| {
        // Threads inherit the namespace of the one that makes them.
        let connections: Vec<_> = (0..4).map(|_| scope.spawn(lossy)).collect();
        let (mut readings, mut before) = (0, 0);
        while !connections.iter().all(ScopedJoinHandle::is_finished) {
            let sample = space.collector.collect();
            let sum = space.flows(&sample).iter().map(|flow| flow.resent.total()).sum();
            let shrank = sum < before;
            (readings, before) = (readings + 1, sum);
            // However slow the machine is.
            enough.fetch_or(shrank || readings >= 10, Ordering::Relaxed);
            if shrank {
                return Err(format!("{readings} readings, and fewer segments than before: {sum}"));
            }
        }
        for connection in connections {
            connection.join().map_err(|_| "a connection panicked")??;
        }
        Ok((readings, before))
    })?;
    // Without a barrier what was counted last is told one reading later.
    space.collector.collect();
    let (_, ours, kernels) = space.agrees()?;
    if kernels.fast < 20 || before == 0 {
        return Err(format!("{readings} readings, too little was lost: {kernels:?}"));
    }
    Ok(format!("{} segments in {readings} readings, {before} of them before the last", ours.total()))
}

/// A namespace's row is the sum of its flows; beside it are the kernel's counters, where a flow has a process that leads there.
fn row_of_a_namespace(space: &mut Space) -> Result<String, String> {
    let own = std::env::current_exe().map_err(say("own program"))?;
    // Of this thread's namespace, which this process's first thread is not in.
    let mut worker = Command::new(own).args(["role:unheard"]).stdin(Stdio::piped()).spawn().map_err(say("worker"))?;
    let counted = until(|kernel| kernel.timeouts >= 2).and_then(|()| space.agrees());
    let row = |sample: &Sample, inode| sample.netns.iter().find(|row| u64::from(row.inode) == inode).cloned();
    worker.kill().and_then(|()| worker.wait()).map_err(say("worker"))?;
    let (sample, ours, kernels) = counted?;
    let row = row(&sample, space.inode).ok_or("no row of the namespace")?;
    let known = health::flows_have_processes()?.then_some((Some(kernels.segments), Some(kernels.failed)));
    let found = row.kernel.map(|kernel| (kernel.segments, kernel.failed));
    let figures = format!("{row:?}; the flows have {}, the kernel says {kernels:?}", ours.total());
    if row.resent == ours && found == known { Ok(figures) } else { Err(figures) }
}

/// A worker's part in that: it sends what nobody hears, until it is ended.
pub(crate) fn unheard() -> Result<(), String> {
    let (mut client, server) = pair(V4)?;
    deaf(&server)?;
    // So that neither end sends anything again when this has ended, in a namespace that no test looks at any more.
    for end in [&client, &server] {
        end.set_linger(Some(Duration::ZERO)).map_err(say("linger"))?;
    }
    client.write_all(b"x").map_err(say("write"))?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(say("read"))
}

/// What sends many segments again is told when it begins, and when it has been quiet.
fn burst(space: &mut Space) -> Result<String, String> {
    let within = Duration::from_secs(2);
    let mut watch = Watch::new(Thresholds { burst: Burst { count: 5, within }, ..Thresholds::default() }, Vec::new());
    let netns = Label::Number(space.inode);
    let mut see = |space: &mut Space| {
        let mut sample = space.collector.collect();
        watch.see(&mut sample);
        let here = |event: &Event| event.labels.iter().any(|(name, label)| *name == "netns" && *label == netns);
        let mut events = sample.events;
        events.retain(here);
        events
    };
    let before = see(space);
    let _both = bulk(V4, 24 << 20)?;
    let (_, ours, _) = space.agrees()?;
    let [open] = &see(space)[..] else { return Err("not one event after the losses".into()) };
    let told = format!("{} segments sent again within 2s (", ours.total());
    if open.state != Stage::Open || !open.text.contains(&told) || !before.is_empty() {
        return Err(format!("before: {before:?}, after: {open:?}; expected {told:?}"));
    }
    thread::sleep(within);
    let [close] = &see(space)[..] else { return Err("not one event after the quiet".into()) };
    if close.state != Stage::Close || close.id != open.id { Err(format!("{close:?}")) } else { Ok(close.text.clone()) }
}

/// A socket of IPv6 that talks to IPv4 has the addresses of IPv4.
fn mapped(space: &mut Space) -> Result<String, String> {
    let any = socket(V6)?;
    any.set_only_v6(false).map_err(say("socket"))?;
    any.bind(&SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0).into()).map_err(say("bind"))?;
    any.listen(8).map_err(say("listen"))?;
    let port = any.local_addr().map_err(say("name"))?.as_socket().ok_or("no address")?.port();
    let mut client = socket(V4)?;
    client.connect(&SocketAddr::new(V4, port).into()).map_err(say("connect"))?;
    let (mut server, _) = any.accept().map_err(say("accept"))?;
    deaf(&client)?;
    server.write_all(b"x").map_err(say("write"))?;
    until(|kernel| kernel.timeouts >= 1)?;
    hears(&client)?;
    client.read_exact(&mut [0]).map_err(say("read"))?;
    let (sample, ..) = space.agrees()?;
    let locals: Vec<_> = space.flows(&sample).into_iter().filter_map(|flow| label(flow, "local")).collect();
    if locals != [format!("127.0.0.1:{port}")] {
        return Err(format!("{locals:?}"));
    }
    Ok(locals.join(", "))
}

/// While its address is gone a socket cannot send anything again.
fn failures(space: &mut Space) -> Result<String, String> {
    let (mut client, mut server) = pair(V4)?;
    deaf(&server)?;
    client.write_all(b"x").map_err(say("write"))?;
    until(|kernel| kernel.timeouts >= 1)?;
    let before = counters()?;
    ip("address del 127.0.0.1/8 dev lo")?;
    until(|kernel| kernel.timeouts >= before.timeouts + 2)?;
    ip("address add 127.0.0.1/8 dev lo")?;
    hears(&server)?;
    server.read_exact(&mut [0]).map_err(say("read"))?;
    let (sample, ours, kernels) = space.agrees()?;
    let tells = sample.host.tcp.tells_failures;
    if tells && ours.failures < 2 {
        return Err(format!("{ours:?}, the kernel: {kernels:?}"));
    }
    Ok(format!(
        "{} attempts failed, {} segments were sent{}",
        ours.failures,
        ours.total(),
        if tells { "" } else { "; this kernel tells only of these" }
    ))
}

/// More flows than have a row or a place: nothing is lost, and memory is bounded.
fn many_flows(space: &mut Space) -> Result<String, String> {
    const FLOWS: usize = 9_000;
    allow_descriptors(FLOWS)?;
    let (listener, name) = listener(V4)?;
    deaf(&listener)?;
    let was = space.collector.collect();
    let clients = (0..FLOWS).map(|_| socket(V4).and_then(|client| begin(&client, name).map(|()| client)));
    let clients: Vec<Socket> = clients.collect::<Result<_, _>>()?;
    until(|kernel| kernel.syn as usize >= FLOWS)?;
    drop(clients);
    let is = space.collector.collect();
    let sum = |sample: &Sample| sample.host.tcp.resent.map_or(0, |resent| resent.segments[Cause::Syn as usize]);
    let (ours, kernels) = (sum(&is) - sum(&was), counters()?.syn);
    // Others on this machine may resend a SYN, too, but not many.
    if ours < kernels || ours > kernels + 20 {
        return Err(format!("{ours} SYNs, the kernel says {kernels}"));
    }
    let rows: u64 = is.tcp_flows.iter().map(|flow| flow.resent.total()).sum();
    let all = is.host.tcp.resent.map_or(0, |resent| resent.total());
    if rows != all || is.tcp_flows.len() > 1_001 {
        return Err(format!("{} rows sum to {rows}, of {all}", is.tcp_flows.len()));
    }
    let source = source(&is)?;
    if source.dropped == 0 || !matches!(&source.state, State::Degraded(why) if why.contains("map full")) {
        return Err(format!("the overflow is not told: {source:?}"));
    }
    Ok(format!("{ours} SYNs of {FLOWS} flows, {} of them without a place", source.dropped))
}

/// So many sockets may be open at once.
fn allow_descriptors(sockets: usize) -> Result<(), String> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // `None` is no limit.
    let enough = |limit: Option<u64>| limit.map(|limit| limit.max(sockets as u64 + 1_000));
    let raised = Rlimit { current: enough(limit.current), maximum: enough(limit.maximum) };
    rustix::process::setrlimit(Resource::Nofile, raised).map_err(say("descriptors"))
}

/// Ten times more flows than the kernel's map has room for come and go, and are read again and again meanwhile: no segment is lost, and
/// neither rows nor memory grow with them.
fn passing_flows(space: &mut Space) -> Result<String, String> {
    const MOST_ROWS: usize = 1_001;
    const MOST_GROWTH: u64 = 8 << 20;
    let flows = load(100_000) as usize;
    let at_once = flows / 10;
    allow_descriptors(at_once)?;
    // Each sends its SYN again exactly once: as many segments as flows say that all of them did.
    set("tcp_syn_retries", 1)?;
    // Since 6.5 there are so many more.
    if Path::new("/proc/sys/net/ipv4/tcp_syn_linear_timeouts").exists() {
        set("tcp_syn_linear_timeouts", 0)?;
    }
    let (listener, name) = listener(IpAddr::V4(Ipv4Addr::UNSPECIFIED))?;
    deaf(&listener)?;
    let _stats = enable_stats(Stats::RunTime).map_err(say("statistics"))?;
    let (elsewhere, runs) = (counters_of("self")?.segments, runs()?);
    let total = |sample: &Sample| -> u64 { sample.tcp_flows.iter().map(|flow| flow.resent.total()).sum() };
    let was = total(&space.collector.collect());
    let (memory, maps) = (resident()?, map_bytes()?);
    let (mut told, mut readings, mut peak) = (was, 0, memory);
    let mut look = || {
        let sample = space.collector.collect();
        let now = total(&sample);
        if sample.tcp_flows.len() > MOST_ROWS || now < told {
            return Err(format!("{} rows, {now} segments after {told}", sample.tcp_flows.len()));
        }
        (told, readings, peak) = (now, readings + 1, peak.max(resident()?));
        Ok(())
    };
    let mut opened = 0;
    while opened < flows {
        let batch = opened..flows.min(opened + at_once);
        opened = batch.end;
        let clients: Vec<Socket> = batch.map(|number| silent_client(number, name.port())).collect::<Result<_, _>>()?;
        waited_for("SYNs to be sent again", || look().and_then(|()| Ok(counters()?.syn as usize >= opened)))?;
        drop(clients);
    }
    let (sample, _) = space.counted()?;
    let kernels = counters()?;
    let elsewhere = counters_of("self")?.segments - elsewhere;
    let (ours, sent) = (total(&sample) - was, kernels.segments - kernels.failed);
    // A kernel that hides tasks also hides what happens in interrupts of theirs.
    let events = sent + if sample.host.tcp.tells_failures { kernels.failed } else { 0 };
    let hidden = events.saturating_sub(self::runs()? - runs);
    let grown = peak.max(resident()?) - memory;
    let figures = format!(
        "{ours} segments of {opened} flows in {readings} readings, the kernel says {sent} here, {hidden} of them hidden, and {elsewhere} \
         elsewhere; {} without a place; {} rows, {grown} bytes more, maps have {maps}",
        source(&sample)?.dropped,
        sample.tcp_flows.len(),
    );
    let may_hide = if untraced(&sample) > 0 { sent / 10 } else { 0 };
    let is_exact = sent as usize == flows && hidden <= may_hide && (sent..=sent + elsewhere).contains(&(ours + hidden));
    let is_bounded = sample.tcp_flows.len() <= MOST_ROWS && grown <= MOST_GROWTH && map_bytes()? == maps;
    if is_exact && is_bounded { Ok(figures) } else { Err(figures) }
}

/// A socket whose SYN nobody answers. A port has few thousand peers before the kernel searches long for a free one, so that they go to
/// many addresses.
fn silent_client(number: usize, port: u16) -> Result<Socket, String> {
    const EACH: usize = 5_000;
    let address = Ipv4Addr::new(127, 0, 1, (number / EACH) as u8);
    let client = socket(V4)?;
    begin(&client, SocketAddr::new(address.into(), port)).map(|()| client)
}

/// Sets a parameter of this thread's network namespace.
fn set(parameter: &str, value: u64) -> Result<(), String> {
    let path = format!("/proc/sys/net/ipv4/{parameter}");
    fs::write(&path, value.to_string()).map_err(say(&path))
}

/// What all maps of this process take from the kernel, in bytes, by its own count.
fn map_bytes() -> Result<u64, String> {
    Ok(of_descriptors("map_type:", "memlock:")?.iter().sum())
}

/// How often the kernel has run this process's programs since it was asked to count.
fn runs() -> Result<u64, String> {
    let own = of_descriptors("prog_type:", "prog_id:")?;
    let ours = |info: &ProgramInfo| info.name().starts_with(b"tcp_retransmit") && own.contains(&info.id().into());
    let all: Vec<ProgramInfo> = loaded_programs().collect::<Result<_, _>>().map_err(say("programs"))?;
    Ok(all.iter().filter(|info| ours(info)).map(ProgramInfo::run_count).sum())
}

/// A number that the kernel tells of each of this process's descriptors of a kind.
fn of_descriptors(kind: &str, number: &str) -> Result<Vec<u64>, String> {
    let folder = "/proc/self/fdinfo";
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(say(folder))?.flatten() {
        // The folder's own is closed by now.
        let Ok(info) = fs::read_to_string(entry.path()) else { continue };
        if info.contains(kind) {
            let line = info.lines().find_map(|line| line.strip_prefix(number)).ok_or(format!("{kind} without {number}"))?;
            numbers.push(line.trim().parse().map_err(say(number))?);
        }
    }
    Ok(numbers)
}

fn source(sample: &Sample) -> Result<&Source, String> {
    sample.sources.iter().find(|source| source.name == "tcp").ok_or("no health of tcp".into())
}

fn row(flow: &TcpFlow) -> Row<'_, TcpFlow> {
    Row { is: flow, was: None, interval: None }
}

fn label(flow: &TcpFlow, wanted: &str) -> Option<String> {
    AnyRow::labels(&row(flow)).iter().find(|(name, _)| *name == wanted).map(|(_, label)| label.to_string())
}

/// Path of this process's cgroup of the v2 hierarchy.
fn own_cgroup() -> Result<String, String> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(say("/proc/self/cgroup"))?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::")).ok_or("no v2 hierarchy")?.to_owned())
}

/// Moves this process to a cgroup of the v2 hierarchy.
fn enter(path: &str) -> Result<(), String> {
    let root = v2_root().ok_or("no v2 hierarchy")?;
    let procs = root.join(path.trim_start_matches('/')).join("cgroup.procs");
    fs::write(&procs, std::process::id().to_string()).map_err(say(&procs.display().to_string()))
}

/// What the label of a flow in this cgroup says: nothing where the kernel does not tell the cgroup of a socket.
fn told(cgroup: String) -> Result<Option<String>, String> {
    Ok((health::tcp_attached()? == State::On).then_some(cgroup))
}

fn ip(line: &str) -> Result<(), String> {
    let status = Command::new("ip").args(line.split(' ')).status().map_err(say("ip"))?;
    if status.success() { Ok(()) } else { Err(format!("ip {line}: {status}")) }
}

fn say<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String + use<E> {
    let what = what.to_owned();
    move |error| format!("{what}: {error}")
}
