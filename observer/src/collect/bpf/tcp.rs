//! The TCP family: attaching its two programs, and taking what they counted.
//!
//! A flow's place in the kernel's map belongs to one generation, the scheduler family's: a program that runs counts in the generation that
//! its CPU's header names. When a generation has ended (see `sched`), nobody writes to its places any more; then they are
//! read and removed, so that every event is taken exactly once, and the map is never fuller than one interval made it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use aya::maps::{HashMap, Map, MapData, MapError};
use aya::{Btf, Ebpf};
use observer_common::pod;
use observer_common::tcp::{FLOWS, Flow, FlowKey, Overflow, TcpOffsets};

use super::attached::Attached;
use super::btf::{self, BtfError, Missing};
use super::holders::Holders;
use super::loader::{LoadError, missing, refused};
use super::words::{from_words, words_of};
use crate::model::tcp::{FlowId, Holder};
use crate::sys::Mapping;

/// A key and a value as aya takes them.
type KeyWords = [u64; words_of::<FlowKey>()];
type FlowWords = [u64; words_of::<Flow>()];

/// Kernel memory for the flows, in bytes. The kernel (6.18) adds 48 to each and has a bucket of 16 for it.
pub const BYTES: usize = FLOWS as usize * (size_of::<FlowKey>() + size_of::<Flow>() + 48 + 16);

/// The attached programs and their maps.
#[derive(Debug)]
pub struct Tcp {
    flows: HashMap<MapData, KeyWords, FlowWords>,
    other: Mapping,
    /// Those at tracepoints.
    pub(super) programs: Vec<Attached>,
    /// Who has the sockets open; `None` where the kernel does not tell.
    holders: Option<Holders>,
    tells_failures: bool,
    lacking: Vec<String>,
}

impl Tcp {
    /// Loads and attaches the programs of an object whose offsets have been set. Without `tcp_retransmit_synack` the other one works alone.
    ///
    /// # Errors
    ///
    /// What aya and the kernel say.
    pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, offsets: &TcpOffsets, proc: &Path) -> Result<Tcp, LoadError> {
        let flows = ebpf.take_map("FLOWS").ok_or_else(|| missing("FLOWS"))?;
        let flows = HashMap::try_from(flows).map_err(|error| refused("cannot use the map of flows", &error))?;
        let other = match ebpf.map("OTHER_FLOWS") {
            Some(Map::Array(map)) => Mapping::of_map(map.fd().as_fd(), size_of::<Overflow>()).map_err(LoadError::Map)?,
            _ => return Err(missing("OTHER_FLOWS")),
        };
        let mut attach = |name| Attached::new(ebpf, btf, proc, name, name);
        let mut programs = vec![attach("tcp_retransmit_skb")?];
        let mut lacking = Vec::new();
        match attach("tcp_retransmit_synack") {
            Ok(program) => programs.push(program),
            Err(error) => lacking.push(format!("{error}: SYN-ACKs that are sent again are not counted")),
        }
        if offsets.cgroup == 0 {
            lacking.push("the kernel's BTF says: sock_cgroup_data has no member cgroup: flows have no cgroup".into());
        }
        if offsets.net == 0 {
            lacking.push("the kernel's BTF says: sock_common has no network namespace: flows have none".into());
        }
        let holders =
            Holders::attach(ebpf, btf, offsets).inspect_err(|error| lacking.push(format!("{error}: flows have no process"))).ok();
        Ok(Tcp { holders, flows, other, programs, tells_failures: offsets.retransmit_has_err != 0, lacking })
    }

    /// Whether attempts that failed are known (6.17 and later).
    pub fn tells_failures(&self) -> bool {
        self.tells_failures
    }

    /// What is missing of it, each with what is lost.
    pub fn lacking(&self) -> &[String] {
        &self.lacking
    }

    /// Takes all flows of generations up to `ended`, to which nobody writes any more.
    ///
    /// # Errors
    ///
    /// What the kernel says. What is then left in the map is taken the next time.
    pub fn drain(&mut self, ended: u64, each: &mut dyn FnMut(&FlowKey, &Flow)) -> Result<(), MapError> {
        // All keys first: a walk of the map that loses the key at which it is begins anew.
        let keys: Vec<KeyWords> = self.flows.keys().collect::<Result<_, _>>()?;
        for words in keys {
            let key: FlowKey = from_words(&words);
            if key.generation <= ended {
                let flow = from_words(&self.flows.get(&words, 0)?);
                self.flows.remove(&words)?;
                each(&key, &flow);
            }
        }
        Ok(())
    }

    /// Finds out whose these flows are.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn see(&mut self, flows: &[(FlowId, u64)], now: Instant) -> io::Result<()> {
        self.holders.as_mut().map_or(Ok(()), |holders| holders.see(flows, now))
    }

    /// A process that has a flow's socket open, as far as [`Tcp::see`] found one.
    pub fn holder(&self, flow: &FlowId) -> Option<Holder> {
        self.holders.as_ref()?.of(flow)
    }

    /// What found no place in the map since the programs were attached.
    pub fn overflow(&self) -> Overflow {
        self.other.read(0).unwrap_or(pod::zeroed())
    }

    /// Events that the kernel kept from the programs; `None` where it does not tell.
    pub fn nested(&self) -> Option<u64> {
        self.programs.iter().map(Attached::nested).sum()
    }
}

/// Resolves the family's offsets; inside, what this kernel lacks and without which the family is off.
pub(super) fn resolve(btf: &btf::Btf<'_>) -> Result<Result<TcpOffsets, Missing>, BtfError> {
    let mut lacks = None;
    let mut member = |path: &str| match btf.member(path)? {
        Ok(member) => Ok(member.offset),
        Err(missing) => {
            lacks.get_or_insert(missing);
            Ok(0)
        }
    };
    let optional = |path: &str| Ok(btf.member(path)?.map_or(0, |member| member.offset));
    let control_block = member("sk_buff.cb")?;
    let mut offsets = TcpOffsets {
        family: member("sock_common.skc_family")?,
        state: member("sock_common.skc_state")?,
        daddr: member("sock_common.skc_daddr")?,
        rcv_saddr: member("sock_common.skc_rcv_saddr")?,
        v6_daddr: optional("sock_common.skc_v6_daddr")?,
        v6_rcv_saddr: optional("sock_common.skc_v6_rcv_saddr")?,
        dport: member("sock_common.skc_dport")?,
        num: member("sock_common.skc_num")?,
        net: optional("sock_common.skc_net.net")?,
        net_inum: optional("net.ns.inum")?,
        cgroup: optional("sock.sk_cgrp_data.cgroup")?,
        skb_segments: control_block + member("tcp_skb_cb.tcp_gso_segs")?,
        skb_flags: control_block + member("tcp_skb_cb.tcp_flags")?,
        srtt: member("tcp_sock.srtt_us")?,
        cwnd: member("tcp_sock.snd_cwnd")?,
        rto: member("tcp_sock.inet_conn.icsk_rto")?,
        backoff: member("tcp_sock.inet_conn.icsk_backoff")?,
        retransmits: member("tcp_sock.inet_conn.icsk_retransmits")?,
        ca_state: 0,
        ca_state_shift: 0,
        ca_state_mask: 0,
        retransmit_has_err: 0,
        socket_sk: 0,
        total_retrans: member("tcp_sock.total_retrans")?,
    };
    if btf.enumerator("bpf_func_id", "BPF_FUNC_sock_from_file")?.is_ok() {
        offsets.socket_sk = member("socket.sk")?;
    }
    match btf.bits("tcp_sock.inet_conn.icsk_ca_state")? {
        Ok(bits) => {
            (offsets.ca_state, offsets.ca_state_shift) = (bits.offset / 8, bits.offset % 8);
            offsets.ca_state_mask = (1 << bits.width.min(8)) - 1;
        }
        Err(missing) => {
            lacks.get_or_insert(missing);
        }
    }
    match btf.tracepoint_arguments("tcp_retransmit_skb")? {
        Ok(arguments) => offsets.retransmit_has_err = u64::from(arguments >= 3),
        Err(missing) => {
            lacks.get_or_insert(missing);
        }
    }
    Ok(lacks.map_or(Ok(offsets), Err))
}
