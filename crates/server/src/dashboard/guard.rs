//! Whose requests are answered.
//!
//! Any web page that a user opens may send requests to loopback. Two things keep them from reading and from doing anything:
//! - **The request's `Host` must be this very address.** A page whose name is bent to point to 127.0.0.1 (DNS rebinding) is of
//!   the same origin as we are, as far as the browser can tell; but it sends its name.
//! - **A button needs three things**: no foreign `Origin`, no foreign `Sec-Fetch-Site`, and the token that stands in our
//!   own pages, drawn at the start. Each alone would do against a browser that works.

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, StatusCode};
use std::net::{IpAddr, SocketAddr};

/// What a page may load and do: only what this server sends as a file of its own. No frames around it, no forms elsewhere.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub &'static str);

const OTHER_HOST: Refusal = Refusal(
    StatusCode::MISDIRECTED_REQUEST,
    "this dashboard answers at its address only, not at a name: type http://127.0.0.1 and its port into the browser\n",
);
const FOREIGN: Refusal =
    Refusal(StatusCode::FORBIDDEN, "this request comes from another web page, and is not obeyed\n");
const NO_TOKEN: Refusal =
    Refusal(StatusCode::FORBIDDEN, "this page is older than the dashboard: load it again, then press the button\n");

/// Every request: is it meant for us?
pub fn host(headers: &HeaderMap, own: SocketAddr) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(OTHER_HOST) };
    let host = host.to_str().map_err(|_| OTHER_HOST)?;
    if is_own(host, own) { Ok(()) } else { Err(OTHER_HOST) }
}

/// An address with our port, or `localhost`, which names nobody else.
pub fn is_own(host: &str, own: SocketAddr) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.port() == own.port() && is_ours(address.ip(), own.ip());
    }
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return own.port() == 80 && is_ours(ip, own.ip()); // what browsers leave out
    }
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    name.eq_ignore_ascii_case("localhost") && port.parse() == Ok(own.port()) && own.ip().is_loopback()
}

/// A machine that listens at any of its addresses does not know them all.
fn is_ours(ip: IpAddr, own: IpAddr) -> bool {
    ip == own || own.is_unspecified() || (ip.is_loopback() && own.is_loopback())
}

/// A request that does something: is it from a page of ours? `token` is what it brought.
pub fn press(headers: &HeaderMap, token: &[u8], expected: &str) -> Result<(), Refusal> {
    let host = headers.get(HOST).map(|it| it.as_bytes()).unwrap_or_default();
    for origin in headers.get_all(ORIGIN) {
        if origin.as_bytes().strip_prefix(b"http://") != Some(host) {
            return Err(FOREIGN);
        }
    }
    if headers.get_all(FETCH_SITE).iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return Err(FOREIGN);
    }
    // Compared in a time that does not tell how much of it was right.
    let differs = token.iter().zip(expected.as_bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    if token.len() != expected.len() || differs != 0 { Err(NO_TOKEN) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_name_that_is_bent_to_point_here_is_refused() {
        let own = address("127.0.0.1:2380");
        for good in ["127.0.0.1:2380", "localhost:2380", "LOCALHOST:2380", "127.1.2.3:2380", "[::1]:2380"] {
            assert!(host(&headers(&[("host", good)]), own).is_ok(), "{good}");
        }
        for bad in [
            "evil.example:2380",
            "127.0.0.1.evil.example:2380",
            "localhost.evil.example:2380",
            "127.0.0.1:2379",
            "127.0.0.1",
            "10.0.0.1:2380",
            "localhost",
            "",
        ] {
            assert_eq!(host(&headers(&[("host", bad)]), own), Err(OTHER_HOST), "{bad}");
        }
        assert_eq!(host(&headers(&[]), own), Err(OTHER_HOST));
        assert_eq!(host(&headers(&[("host", "127.0.0.1:2380"), ("host", "evil.example")]), own), Err(OTHER_HOST));
        assert!(host(&headers(&[("host", "10.1.2.3:2380")]), address("0.0.0.0:2380")).is_ok());
        assert!(host(&headers(&[("host", "localhost:2380")]), address("0.0.0.0:2380")).is_err());
        assert!(host(&headers(&[("host", "127.0.0.1")]), address("127.0.0.1:80")).is_ok());
    }

    #[test]
    fn a_button_is_pressed_only_from_our_own_page() {
        let own = ("host", "127.0.0.1:2380");
        let origin = ("origin", "http://127.0.0.1:2380");
        let pressed =
            |pairs: &[(&'static str, &'static str)], token: &str| press(&headers(pairs), token.as_bytes(), "abc");
        assert_eq!(pressed(&[own, origin, ("sec-fetch-site", "same-origin")], "abc"), Ok(()));
        assert_eq!(pressed(&[own], "abc"), Ok(()), "a program that has read the page");
        for foreign in ["http://evil.example", "null", "https://127.0.0.1:2380", "http://127.0.0.1:8080"] {
            assert_eq!(pressed(&[own, ("origin", foreign)], "abc"), Err(FOREIGN), "{foreign}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(pressed(&[own, origin, ("sec-fetch-site", site)], "abc"), Err(FOREIGN), "{site}");
        }
        for token in ["", "ab", "abd", "abcd"] {
            assert_eq!(pressed(&[own, origin], token), Err(NO_TOKEN), "{token}");
        }
    }
}
