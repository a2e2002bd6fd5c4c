//! Which addresses may be called. Pure.
//!
//! Whoever may make a webhook makes the server call an address. The server stands where private networks, its own machine and
//! the cloud's metadata can be reached: those are called only where the operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {what}")]
pub struct NotAllowed {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub what: &'static str,
}

/// Whether `address` may be called, where `allowed` names the networks that the operator lets in.
///
/// # Errors
///
/// [`NotAllowed`] with what it is.
pub fn check(address: IpAddr, allowed: &[IpNet]) -> Result<(), NotAllowed> {
    match what(address) {
        Some(what) if !is_listed(address, allowed) => Err(NotAllowed { address, what }),
        _ => Ok(()),
    }
}

/// Whether the operator lists `address`.
#[must_use]
pub fn is_listed(address: IpAddr, allowed: &[IpNet]) -> bool {
    allowed.iter().any(|net| net.contains(&address) || net.contains(&address.to_canonical()))
}

/// What is wrong with an address; `None` for one on the public internet.
fn what(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => what_v4(address),
        IpAddr::V6(address) => what_v6(address),
    }
}

fn what_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "an address of this network",
        (10, ..) | (192, 168, _) => "private",
        (172, 16..=31, _) => "private",
        (100, 64..=127, _) => "shared by carriers (CGNAT)",
        (127, ..) => "this machine",
        (169, 254, _) => "link-local, where clouds keep their metadata",
        (192, 0, 0) => "reserved for protocols",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "for documentation",
        (192, 88, 99) => "a 6to4 relay",
        (198, 18..=19, _) => "for benchmarks",
        (224..=239, ..) => "multicast",
        (240..=255, ..) => "reserved",
        _ => return None,
    })
}

fn what_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    Some(match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => "no address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "this machine",
        [0, 0, 0, 0, 0, 0, ..] => "an embedded IPv4 address",
        [0x0064, 0xff9b, ..] => "a translated IPv4 address (NAT64)",
        [0x0100, ..] => "a black hole",
        [0x2001, 0..=0x01ff, ..] => "reserved for protocols",
        [0x2001, 0x0db8, ..] | [0x3fff, ..] => "for documentation",
        [0x2002, ..] => "an embedded IPv4 address (6to4)",
        [0xfc00..=0xfdff, ..] => "private",
        [0xfe80..=0xfebf, ..] => "link-local",
        [0xfec0..=0xfeff, ..] => "site-local",
        [0xff00..=0xffff, ..] => "multicast",
        [0x2000..=0x3fff, ..] => return None,
        _ => "reserved",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_not_on_the_public_internet_is_refused() {
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(check(address(text), &[]).is_err(), "{text}");
        }
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "223.255.255.1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(check(address(text), &[]), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_operator_lets_networks_in_and_no_others() {
        let allowed: Vec<IpNet> = ["10.20.0.0/16", "127.0.0.1/32"].map(|net| net.parse().unwrap()).to_vec();
        assert_eq!(check(address("10.20.3.4"), &allowed), Ok(()));
        assert_eq!(check(address("::ffff:10.20.3.4"), &allowed), Ok(()));
        assert_eq!(check(address("127.0.0.1"), &allowed), Ok(()));
        assert!(check(address("10.21.0.1"), &allowed).is_err() && check(address("127.0.0.2"), &allowed).is_err());
        assert!(check(address("::1"), &allowed).is_err());
    }
}
