//! What the daemon answers at `/metrics`, as a reader of Prometheus' text has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http;
use crate::instance::Instance;

/// A page is made anew after a second; a busy machine takes longer.
const COMES_WITHIN: Duration = Duration::from_secs(20);

/// A series: its labels and its value.
pub type Series = (BTreeMap<String, String>, f64);

/// A page of metrics.
#[derive(Debug)]
pub struct Scrape {
    /// As it came.
    pub text: String,
    series: BTreeMap<String, Vec<Series>>,
}

/// Where an instance answers.
///
/// # Panics
///
/// If it does not.
#[track_caller]
pub fn address(instance: &Instance) -> SocketAddr {
    let status = instance.call("status --json").json();
    status["metrics"].as_str().unwrap_or_else(|| panic!("no metrics: {status}")).parse().unwrap()
}

/// A page as it is now, or up to a second ago.
///
/// # Panics
///
/// If none comes.
#[track_caller]
pub fn scrape(address: SocketAddr) -> Scrape {
    let (status, body) = http::get(address, "/metrics").unwrap();
    assert_eq!(status, 200);
    Scrape::parse(String::from_utf8(body).unwrap())
}

/// The first page that is as wanted.
///
/// # Panics
///
/// If none comes in time; says the last one.
#[track_caller]
pub fn until(address: SocketAddr, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
    let until = Instant::now() + COMES_WITHIN;
    loop {
        let page = scrape(address);
        if wanted(&page) {
            return page;
        }
        assert!(Instant::now() < until, "{what}: {}", page.text);
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Scrape {
    /// Reads a page.
    ///
    /// # Panics
    ///
    /// If a line is no sample.
    pub fn parse(text: String) -> Self {
        let mut series: BTreeMap<String, Vec<Series>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
            // No label of ours has a comma or a quote in it.
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (key, value) = label.split_once('=')?;
                Some((key.to_owned(), value.trim_matches('"').to_owned()))
            });
            series.entry(name.to_owned()).or_default().push((labels.collect(), value.parse().unwrap()));
        }
        Self { text, series }
    }

    /// The names of all metrics that have a series; of a histogram its own, and not those of its parts.
    pub fn names(&self) -> BTreeSet<String> {
        let histograms: BTreeSet<&str> = self.series.keys().filter_map(|name| name.strip_suffix("_bucket")).collect();
        let whole = |name: &String| {
            let part = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            part.filter(|whole| histograms.contains(whole)).unwrap_or(name).to_owned()
        };
        self.series.keys().map(whole).collect()
    }

    /// The sum of a metric's series with these labels; none where there is no such series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let of_name = self.series.get(name)?.iter();
        let matching =
            of_name.filter(|(of, _)| labels.iter().all(|(key, value)| of.get(*key).is_some_and(|v| v == value)));
        matching.map(|(_, value)| *value).reduce(|one, other| one + other)
    }

    /// The different values of a label of a metric.
    pub fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let series = self.series.get(name).into_iter().flatten();
        series.filter_map(|(labels, _)| labels.get(label).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Scrape;

    #[test]
    fn samples_are_read_with_their_labels() {
        let page = "# HELP a b\n# TYPE a gauge\na{x=\"1\",y=\"z\"} 2\na{x=\"2\",y=\"z\"} 3.5\nb 7\n";
        let page = Scrape::parse(page.to_owned());
        assert_eq!((page.sum("a", &[("y", "z")]), page.sum("a", &[("x", "2")])), (Some(5.5), Some(3.5)));
        assert_eq!((page.sum("b", &[]), page.sum("c", &[]), page.sum("a", &[("x", "3")])), (Some(7.0), None, None));
        assert_eq!(page.values("a", "x").len(), 2);
    }

    #[test]
    fn a_histogram_has_one_name() {
        let page = "a_seconds_bucket{le=\"+Inf\"} 2\na_seconds_sum 1\na_seconds_count 2\nthread_count 3\n";
        let names: Vec<_> = Scrape::parse(page.to_owned()).names().into_iter().collect();
        assert_eq!(names, ["a_seconds", "thread_count"]);
    }
}
