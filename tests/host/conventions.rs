//! What the documents name is of the semantic conventions, or in our own namespace.

use std::path::Path;

use bailiwick_tests::conventions;

#[test]
fn every_attribute_of_an_observation_is_of_the_conventions_or_ours() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md");
    let page = std::fs::read_to_string(page).unwrap();
    let lists = page.lines().filter_map(|line| line.strip_prefix("- Attributes: "));
    let all = lists.flat_map(|list| list.split(", ")).map(|name| name.trim_matches(['`', '[', ']']));
    let (mut seen, mut strange) = (0, Vec::new());
    for name in all {
        seen += 1;
        if !name.starts_with("bailiwick.") && !conventions::has_attribute(name) {
            strange.push(name);
        }
    }
    assert!(seen > 100, "the page has few attributes: {seen}");
    assert_eq!(strange, Vec::<&str>::new());
}
