//! Proxies: which one a receiver is reached through, by the settings or by the usual variables.
//!
//! Over TLS and for gRPC a proxy is asked for a tunnel (CONNECT); plain OTLP/HTTP is handed to it as it is.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::settings::SettingsError;

/// What a target says of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ProxyChoice {
    /// Nothing: the variables decide. What they do not name a proxy for goes directly.
    #[default]
    ByVariables,
    /// None, whatever the variables say.
    Direct,
    /// This one.
    Through(Proxy),
}

/// A proxy that speaks HTTP.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `http://host:port/`, without a login.
    pub(super) address: Uri,
    /// What to show it.
    pub(super) authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({})", self.place())
    }
}

/// A text is no proxy that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no proxy that can be used: write one that speaks HTTP, as in `http://proxy.example:3128`")]
pub struct NoProxy;

impl Proxy {
    /// Reads `http://[user:password@]host:port`; the scheme may be left out.
    ///
    /// # Errors
    /// It is something else, or a proxy of another kind.
    pub fn parse(text: &str) -> Result<Self, NoProxy> {
        // The matcher does what curl does with such a text; it is asked for a place that no exception names.
        let asked = Uri::from_static("http://receiver.invalid/");
        Matcher::builder().all(text.to_owned()).build().intercept(&asked).ok_or(NoProxy).and_then(|it| Self::of(&it))
    }

    fn of(found: &Intercept) -> Result<Self, NoProxy> {
        let usable = found.uri().scheme_str() == Some("http") && found.uri().host().is_some_and(|it| !it.is_empty());
        let authorization = found.basic_auth().cloned();
        if usable { Ok(Self { address: found.uri().clone(), authorization }) } else { Err(NoProxy) }
    }

    /// Where it is, without a login.
    pub fn place(&self) -> String {
        self.address.authority().map(ToString::to_string).unwrap_or_default()
    }
}

/// The proxy that the variables name for a receiver: `HTTPS_PROXY` or `HTTP_PROXY`, by its scheme, else `ALL_PROXY`;
/// none for what `NO_PROXY` names, and none for this host itself, where a collector often is.
pub(super) fn by_variables(
    endpoint: &Uri,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, SettingsError> {
    let names = match endpoint.scheme_str() {
        Some("https") => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        Some(_) | None => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    };
    let Some((name, text)) = names.into_iter().find_map(|name| Some((name, lookup(name)?))) else { return Ok(None) };
    if endpoint.host().is_none_or(is_this_host) {
        return Ok(None);
    }
    let except = ["NO_PROXY", "no_proxy"].into_iter().find_map(lookup).unwrap_or_default();
    if Matcher::builder().all("http://proxy.invalid").no(except).build().intercept(endpoint).is_none() {
        return Ok(None);
    }
    // The text is not shown: there may be a login in it.
    let problem = |error: NoProxy| SettingsError { place: name.to_owned(), problem: format!("the value {error}") };
    Proxy::parse(text.trim()).map(Some).map_err(problem)
}

fn is_this_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::{NoProxy, Proxy, by_variables};

    fn chosen(endpoint: &str, variables: &[(&str, &str)]) -> Option<String> {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        by_variables(&endpoint.parse().unwrap(), &lookup).unwrap().map(|proxy| proxy.place())
    }

    #[test]
    fn the_usual_variables_name_the_proxy_by_the_receivers_scheme() {
        let all = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2"), ("ALL_PROXY", "http://a:3")];
        assert_eq!(chosen("https://c.example:4317", &all).unwrap(), "s:1");
        assert_eq!(chosen("http://c.example:4318", &all).unwrap(), "p:2");
        assert_eq!(chosen("http://c.example:4318", &all[2..]).unwrap(), "a:3");
        assert_eq!(chosen("https://c.example:4318", &[("HTTP_PROXY", "p:2")]), None);
        assert_eq!(chosen("https://c.example:4318", &[]), None);
    }

    #[test]
    fn exceptions_and_this_host_are_reached_directly() {
        let with = |no: &'static str| [("ALL_PROXY", "http://a:3"), ("NO_PROXY", no)];
        assert_eq!(chosen("https://c.example:4317", &with("other, .example")), None);
        assert_eq!(chosen("https://10.1.2.3:4317", &with("10.0.0.0/8")), None);
        assert_eq!(chosen("https://c.example:4317", &with("*")), None);
        assert_eq!(chosen("https://c.example:4317", &with("d.example")).unwrap(), "a:3");
        for here in ["http://127.0.0.1:4318", "http://localhost:4318", "http://[::1]:4318"] {
            assert_eq!(chosen(here, &with("")), None, "{here}");
        }
    }

    #[test]
    fn a_login_is_shown_to_the_proxy_and_to_nobody_else() {
        let proxy = Proxy::parse("http://user:p%40ss@proxy:3128").unwrap();
        assert_eq!(proxy.authorization.as_ref().unwrap(), "Basic dXNlcjpwQHNz");
        assert_eq!((proxy.place().as_str(), format!("{proxy:?}").as_str()), ("proxy:3128", "Proxy(proxy:3128)"));
    }

    #[test]
    fn a_proxy_that_does_not_speak_http_is_refused_without_its_login() {
        for text in ["socks5://hunter2@p:1080", "https://p:3128", "http://", "a b", ""] {
            assert_eq!(Proxy::parse(text), Err(NoProxy), "{text}");
        }
        let lookup = |name: &str| (name == "ALL_PROXY").then(|| "socks5://u:hunter2@p:1080".to_owned());
        let error = by_variables(&"http://c.example".parse().unwrap(), &lookup).unwrap_err().to_string();
        assert_eq!(
            error,
            "ALL_PROXY: the value is no proxy that can be used: write one that speaks HTTP, as in `http://proxy.example:3128`"
        );
    }
}
