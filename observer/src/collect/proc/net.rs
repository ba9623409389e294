//! `/proc/net/snmp` and `/proc/net/netstat`: what the kernel counts of TCP in the reader's network namespace.

use super::Malformed;
use crate::model::tcp::KernelTcp;

/// Takes over the counters that a file has; both files have the same form.
pub fn parse(text: &str, into: &mut KernelTcp) -> Result<(), Malformed> {
    let mut lines = text.lines();
    // A line of names is followed by one of numbers, each beginning with the protocol.
    while let (Some(names), Some(numbers)) = (lines.next(), lines.next()) {
        let protocol = names.split_once(':').map(|(protocol, _)| protocol);
        if !matches!(protocol, Some("Tcp" | "TcpExt")) {
            continue;
        }
        for (name, number) in names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace()) {
            let field = match name {
                "RetransSegs" => &mut into.segments,
                "TCPRetransFail" => &mut into.failed,
                "TCPTimeouts" => &mut into.timeouts,
                "TCPLossProbes" => &mut into.loss_probes,
                "TCPFastRetrans" => &mut into.fast,
                "TCPSynRetrans" => &mut into.syn,
                _ => continue,
            };
            *field = Some(number.parse().map_err(|_| Malformed::expected("a number", number))?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counters() {
        let mut tcp = KernelTcp::default();
        let snmp = "Ip: Forwarding RetransSegs\nIp: 1 99\nTcp: RtoMin MaxConn RetransSegs\nTcp: 200 -1 17\n";
        let netstat = "TcpExt: TCPTimeouts TCPLossProbes TCPRetransFail TCPFastRetrans TCPSynRetrans\nTcpExt: 1 2 3 4 5\n";
        assert_eq!((parse(snmp, &mut tcp), parse(netstat, &mut tcp)), (Ok(()), Ok(())));
        let expected = [Some(17), Some(1), Some(2), Some(3), Some(4), Some(5)];
        assert_eq!([tcp.segments, tcp.timeouts, tcp.loss_probes, tcp.failed, tcp.fast, tcp.syn], expected);
        assert_eq!(
            parse("Tcp: RetransSegs\nTcp: many\n", &mut tcp).unwrap_err().to_string(),
            r#"expected a number, found "many""#
        );
        let mut old = KernelTcp::default();
        assert_eq!((parse("Tcp: InSegs\nTcp: 5\n", &mut old), old), (Ok(()), KernelTcp::default()), "absent is unknown");
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = parse(&text, &mut KernelTcp::default());
            let _ = parse(&format!("Tcp: {text}\nTcp: {text}"), &mut KernelTcp::default());
        }
    }
}
