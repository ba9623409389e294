//! What counting a retransmitted segment costs, beside an empty program on the same hook in the same run: nanoseconds an event, as the
//! kernel counts them. Needs root; `cargo xtask bench tcp`. Budget: 600 ns net.
//!
//! Retransmissions are rare, so that each finds cold caches, unless very many come at once: both are measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use aya::sys::{Stats, enable_stats};
use socket2::{Domain, SockFilter, Socket, Type};

use self::beside::{Attached, Counted, Result, alternate, counted, median, range};

mod beside;

const HOOK: &str = "tcp_retransmit_skb";
const ROUNDS: usize = 5;
/// Connections that nobody answers: each sends its SYN again after a second.
const FLOWS: usize = 2_000;
/// What goes through one connection that loses one packet of [`LOSES`].
const BYTES: usize = 32 << 20;
const LOSES: u32 = 40;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcp bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // A namespace of its own, before any other thread is there, in which nothing else is lost.
    #[expect(deprecated, reason = "dangerous only where threads stop sharing memory or descriptors, which these go on to do")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
    // A frame of loopback holds 64 KiB otherwise, and nothing would ever have several segments.
    if !Command::new("ip").args(["link", "set", "lo", "mtu", "1500", "up"]).status()?.success() {
        return Err("`ip link` failed".into());
    }
    let _stats = enable_stats(Stats::RunTime)?;
    println!("{:<44} {:>8} {:>9} {:>9} {:>9}", "ns an event (median of rounds)", "events", "empty", "observer", "net");
    compare("many new flows at once", many_flows)?;
    compare("one flow, an event now and then", one_flow)
}

fn compare(name: &str, load: fn() -> Result<()>) -> Result<()> {
    let (mut empty, mut ours, mut events) = (Vec::new(), Vec::new(), 0);
    alternate(ROUNDS, HOOK, |attached| {
        match attached {
            Attached::Empty(program) => empty.push(each(|| program.counted(), load)?.each()),
            Attached::Observer(programs) => {
                programs.tcp.as_ref().map_err(ToString::to_string)?;
                let counted = each(|| counted(&programs, HOOK), load)?;
                events += counted.runs;
                ours.push(counted.each());
            }
        }
        Ok(())
    })?;
    let net: Vec<f64> = ours.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect();
    let (least, most) = range(&net);
    println!(
        "{name:<44} {events:>8} {:9.0} {:9.0} {:9.0}   {least:.0} to {most:.0}",
        median(&empty),
        median(&ours),
        median(&net)
    );
    Ok(())
}

fn each(count: impl Fn() -> Result<Counted>, load: fn() -> Result<()>) -> Result<Counted> {
    let before = count()?;
    load()?;
    Ok(count()?.since(before))
}

fn socket() -> Result<Socket> {
    Ok(Socket::new(Domain::IPV4, Type::STREAM, None)?)
}

fn listener() -> Result<(Socket, SocketAddr)> {
    let socket = socket()?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    let name = socket.local_addr()?.as_socket().ok_or("no address")?;
    Ok((socket, name))
}

/// Connections whose first packet is lost.
fn many_flows() -> Result<()> {
    let (deaf, name) = listener()?;
    // `BPF_RET | BPF_K` with 0 bytes: nothing that comes is let through.
    deaf.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    let mut sockets = Vec::with_capacity(FLOWS);
    for _ in 0..FLOWS {
        let socket = socket()?;
        socket.set_nonblocking(true)?;
        match socket.connect(&name.into()) {
            Err(error) if error.kind() != ErrorKind::WouldBlock && error.raw_os_error() != Some(libc::EINPROGRESS) => {
                return Err(error.into());
            }
            _ => sockets.push(socket),
        }
    }
    thread::sleep(Duration::from_millis(1_500));
    Ok(())
}

/// A connection that loses packets now and then.
fn one_flow() -> Result<()> {
    let (listener, name) = listener()?;
    let mut client = socket()?;
    client.connect(&name.into())?;
    let mut server = listener.accept()?.0;
    // Ancillary data 56 (SKF_AD_RANDOM) at SKF_AD_OFF, -0x1000: a random number.
    let random = SockFilter::new(0x20, 0, 0, 0xffff_f000 + 56);
    let is_at_least = SockFilter::new(0x35, 0, 1, u32::MAX / LOSES);
    server.attach_filter(&[random, is_at_least, SockFilter::new(0x06, 0, 0, u32::MAX), SockFilter::new(0x06, 0, 0, 0)])?;
    let writer = thread::spawn(move || client.write_all(&vec![7; BYTES]).map(|()| client));
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    while received < BYTES {
        received += server.read(&mut buffer)?;
    }
    writer.join().map_err(|_| "the writer panicked")??;
    Ok(())
}
