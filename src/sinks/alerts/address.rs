//! Which addresses a receiver may have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether messages may go there. `private` lets this machine and private networks be
/// receivers too; addresses where clouds keep their machines' credentials, link-local ones
/// above all, never are.
pub(super) fn is_allowed(address: IpAddr, private: bool) -> bool {
    match address {
        IpAddr::V4(address) => v4_is_allowed(address, private),
        IpAddr::V6(address) => v6_is_allowed(address, private),
    }
}

/// Looks public, but every virtual machine of that cloud has its own platform behind it.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// Metadata services of clouds in the private range: AWS, Google Cloud, Scaleway.
const METADATA_V6: [[u16; 2]; 3] = [[0xfd00, 0x0ec2], [0xfd20, 0x00ce], [0xfd00, 0x0042]];

fn v4_is_allowed(address: Ipv4Addr, private: bool) -> bool {
    if address.is_loopback() || address.is_private() {
        return private;
    }
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address == AZURE_PLATFORM
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // Shared between carriers and customers (RFC 6598), protocol assignments,
        // 6to4 relays, benchmarks, reserved and broadcast.
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240)
}

fn v6_is_allowed(address: Ipv6Addr, private: bool) -> bool {
    if let Some(inner) = inner_v4(address) {
        return v4_is_allowed(inner, private);
    }
    if address.is_loopback() || address.is_unique_local() {
        return private && !METADATA_V6.iter().any(|prefix| address.segments()[..2] == *prefix);
    }
    let [first, second, ..] = address.segments();
    // Global unicast, without protocol assignments (Teredo among them) and documentation.
    (0x2000..=0x3fff).contains(&first)
        && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        && first != 0x3fff
}

/// The IPv4 address that an IPv6 address stands for: mapped, translated (64:ff9b::/96)
/// or 6to4.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let of = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_allowed_unless_private_ones_are_asked_for() {
        for public in ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:93.184.215.14"] {
            let address = public.parse().unwrap();
            assert!(is_allowed(address, false) && is_allowed(address, true), "{public}");
        }
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "::1",
            "fd12::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
        ] {
            let address = private.parse().unwrap();
            assert!(!is_allowed(address, false) && is_allowed(address, true), "{private}");
        }
        for never in [
            "0.0.0.0",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.1",
            "::",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a9fe:a9fe::1",
            "::ffff:169.254.169.254",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "168.63.129.16",
            "::ffff:168.63.129.16",
            "64:ff9b::168.63.129.16",
            "2002:a83f:8110::1",
            "100.100.100.200",
            "192.0.0.192",
            "::7f00:1",
        ] {
            let address = never.parse().unwrap();
            assert!(!is_allowed(address, false) && !is_allowed(address, true), "{never}");
        }
    }
}
