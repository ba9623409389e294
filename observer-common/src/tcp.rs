//! The TCP family: what was sent again, by flow and cause.

use crate::pod;

/// Flows that retransmit in one interval and are told apart; what others send again is counted in [`Overflow`]. With the kernel's own
/// overhead a flow takes some 200 bytes.
pub const FLOWS: u32 = 8192;

/// Why a segment was sent again: an index of [`Flow::segments`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Cause {
    /// The socket is in the Loss state (`TCP_CA_Loss`): its retransmission timer expired, or the path's MTU shrank.
    Timeout = 0,
    /// The socket is in the Recovery state (`TCP_CA_Recovery`): acknowledgements told of the loss.
    Fast = 1,
    /// In any other state: a tail-loss probe.
    Probe = 2,
    /// A SYN, whatever the state.
    Syn = 3,
    /// A SYN-ACK of a connection that is not accepted yet.
    SynAck = 4,
}

impl Cause {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// `TCP_CA_Recovery` (include/uapi/linux/tcp.h).
pub const CA_RECOVERY: u32 = 3;
/// `TCP_CA_Loss`.
pub const CA_LOSS: u32 = 4;
/// `TCP_NEW_SYN_RECV` (include/net/tcp_states.h): a connection of which only a SYN came.
pub const NEW_SYN_RECV: u32 = 12;

pod! {
    /// A flow in one generation: to what it belongs and between which ends it is. Addresses are IPv6 in network order, those of IPv4
    /// mapped into it, so that a socket of either family has the same flow.
    pub struct FlowKey {
        /// The generation in which it retransmitted ([`CpuState::generation`](crate::sched::CpuState)).
        pub generation: u64,
        /// The socket's cgroup ([`Key`](crate::sched::Key)); 0 where the kernel does not tell.
        pub cgroup: u64,
        /// Local address.
        pub local: [u32; 4],
        /// Peer's address.
        pub peer: [u32; 4],
        /// Local port times 65,536 and the peer's.
        pub ports: u32,
        /// Inode of the network namespace; 0 where the kernel has none.
        pub netns: u32,
    }
}

pod! {
    /// What a flow sent again in one generation.
    pub struct Flow {
        /// Segments by [`Cause`].
        pub segments: [u64; Cause::COUNT],
        /// Attempts that failed, on kernels that tell of them (6.17).
        pub failures: u64,
        /// How it was at the last time.
        pub last: Last,
    }
}

pod! {
    /// A socket when it retransmitted. Of a connection of which only a SYN came, just the state is known.
    #[derive(PartialEq, Eq)]
    pub struct Last {
        /// `srtt_us` / 8: smoothed round-trip time in microseconds; 0 before the first measurement.
        pub srtt: u32,
        /// `snd_cwnd`: congestion window in segments.
        pub cwnd: u32,
        /// `icsk_rto`: retransmission timeout in ticks of the kernel.
        pub rto: u32,
        /// `icsk_backoff`: how often the timeout was doubled.
        pub backoff: u32,
        /// `icsk_retransmits`: timeouts in a row without an answer.
        pub retransmits: u32,
        /// `skc_state`: `TCP_*` of include/net/tcp_states.h.
        pub state: u32,
    }
}

pod! {
    /// What found no place among the flows; never reset.
    pub struct Overflow {
        /// Segments by [`Cause`].
        pub segments: [u64; Cause::COUNT],
        /// Attempts that failed.
        pub failures: u64,
        /// Events: how often there was no place.
        pub events: u64,
    }
}

pod! {
    /// A TCP socket that sent something again, and a process that has it open, as the iterator writes it.
    pub struct Holder {
        /// Local address, as in [`FlowKey`].
        pub local: [u32; 4],
        /// Peer's address.
        pub peer: [u32; 4],
        /// Local port times 65,536 and the peer's.
        pub ports: u32,
        /// Inode of the network namespace; 0 where the kernel has none.
        pub netns: u32,
        /// The process's id, as the initial PID namespace has it.
        pub tgid: u32,
        /// The file descriptor's number there.
        pub fd: u32,
        /// The `comm` of its first thread.
        pub comm: [u64; 2],
    }
}

pod! {
    /// Where the running kernel keeps what the family reads.
    pub struct TcpOffsets {
        /// `sock_common.skc_family`. It is the first member of `sock` and of `request_sock`, which the kernel itself relies on.
        pub family: u64,
        /// `sock_common.skc_state`.
        pub state: u64,
        /// `sock_common.skc_daddr`.
        pub daddr: u64,
        /// `sock_common.skc_rcv_saddr`.
        pub rcv_saddr: u64,
        /// `sock_common.skc_v6_daddr`; 0 without CONFIG_IPV6.
        pub v6_daddr: u64,
        /// `sock_common.skc_v6_rcv_saddr`; 0 without CONFIG_IPV6.
        pub v6_rcv_saddr: u64,
        /// `sock_common.skc_dport`.
        pub dport: u64,
        /// `sock_common.skc_num`.
        pub num: u64,
        /// `sock_common.skc_net.net`; 0 without CONFIG_NET_NS.
        pub net: u64,
        /// `net.ns.inum`.
        pub net_inum: u64,
        /// `sock.sk_cgrp_data.cgroup`; 0 where it is no pointer (before 5.15).
        pub cgroup: u64,
        /// `sk_buff.cb` + `tcp_skb_cb.tcp_gso_segs`.
        pub skb_segments: u64,
        /// `sk_buff.cb` + `tcp_skb_cb.tcp_flags`, of which the lowest byte is wanted.
        pub skb_flags: u64,
        /// `tcp_sock.srtt_us`.
        pub srtt: u64,
        /// `tcp_sock.snd_cwnd`.
        pub cwnd: u64,
        /// `inet_connection_sock.icsk_rto`.
        pub rto: u64,
        /// `inet_connection_sock.icsk_backoff`.
        pub backoff: u64,
        /// `inet_connection_sock.icsk_retransmits`.
        pub retransmits: u64,
        /// The byte of `inet_connection_sock.icsk_ca_state`, a bitfield.
        pub ca_state: u64,
        /// Bits by which it is shifted in that byte.
        pub ca_state_shift: u64,
        /// Ones for its width.
        pub ca_state_mask: u64,
        /// 1 where `tcp_retransmit_skb` tells of attempts that failed, too, in its third argument (6.17).
        pub retransmit_has_err: u64,
        /// `socket.sk`; 0 where programs cannot come from a file to its socket (`bpf_sock_from_file`, 5.11).
        pub socket_sk: u64,
        /// `tcp_sock.total_retrans`.
        pub total_retrans: u64,
    }
}

impl TcpOffsets {
    /// In the object, the operand that stands for the first of these numbers; the others follow.
    pub const PLACEHOLDER: i32 = 0x0b5e_0200;
}
