//! Who delegated to whom, as a drawing: each agent once, delegators left of those they delegated to.

use std::collections::{BTreeMap, BTreeSet};

use super::markup::{escaped, number};
use crate::review::agent::report::{DelegationUse, Review};

/// Delegations that are drawn, the most frequent ones.
const EDGES: usize = 60;
/// A chain is no longer than declarations let it be; undeclared ones may go in circles.
const MAX_COLUMN: usize = 16;

const BOX_WIDTH: f64 = 190.0;
const BOX_HEIGHT: f64 = 38.0;
const COLUMN: f64 = 300.0;
const ROW: f64 = 62.0;
/// What a box has room for.
const NAME_CHARACTERS: usize = 22;

/// The map.
pub(super) fn delegations(review: &Review) -> String {
    let mut edges: Vec<&DelegationUse> = review.delegations.iter().collect();
    if edges.is_empty() {
        return "<p>It delegated to nobody, and nobody delegated to it.</p>\n".to_owned();
    }
    edges.sort_by_key(|edge| std::cmp::Reverse(edge.uses.count));
    let left_out = edges.len().saturating_sub(EDGES);
    edges.truncate(EDGES);
    let places = places(&edges);
    let columns = places.values().map(|place| place.0).max().unwrap_or(0) + 1;
    let rows = places.values().map(|place| place.1).max().unwrap_or(0) + 1;
    let width = COLUMN * (columns - 1) as f64 + BOX_WIDTH + 4.0;
    let height = ROW * rows as f64;
    let lines: String = edges.iter().map(|edge| line(edge, &places)).collect();
    let boxes: String = places.iter().map(|(name, place)| node(name, *place, *name == review.agent)).collect();
    let more = if left_out > 0 { format!("<p class=\"quiet\">And {left_out} more.</p>\n") } else { String::new() };
    format!(
        "<div class=\"scroll\"><svg class=\"map\" viewBox=\"-2 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" \
         aria-label=\"Who delegated to whom\">\n<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" \
         markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         {lines}{boxes}</svg></div>\n{more}"
    )
}

/// Column and row of each agent: a delegate stands right of its delegators, as far as there is no circle.
fn places<'a>(edges: &[&'a DelegationUse]) -> BTreeMap<&'a str, (usize, usize)> {
    let names: BTreeSet<&str> = edges.iter().flat_map(|edge| [edge.from.as_str(), edge.to.as_str()]).collect();
    let mut column: BTreeMap<&str, usize> = names.iter().map(|name| (*name, 0)).collect();
    for _ in 0..names.len().min(MAX_COLUMN) {
        for edge in edges.iter().filter(|edge| edge.from != edge.to) {
            let from = column.get(edge.from.as_str()).copied().unwrap_or(0);
            let to = column.entry(edge.to.as_str()).or_default();
            *to = (*to).max(from + 1).min(MAX_COLUMN);
        }
    }
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut place = |name: &'a str| {
        let column = column.get(name).copied().unwrap_or(0);
        let row = rows.entry(column).or_default();
        *row += 1;
        (name, (column, *row - 1))
    };
    names.into_iter().map(&mut place).collect()
}

fn corner((column, row): (usize, usize)) -> (f64, f64) {
    (COLUMN * column as f64, ROW * row as f64 + (ROW - BOX_HEIGHT) / 2.0)
}

fn node(name: &str, place: (usize, usize), is_reviewed: bool) -> String {
    let (x, y) = corner(place);
    let shown: String = if name.chars().count() > NAME_CHARACTERS {
        name.chars().take(NAME_CHARACTERS - 1).chain(['…']).collect()
    } else {
        name.to_owned()
    };
    let class = if is_reviewed { "agent self" } else { "agent" };
    format!(
        "<g class=\"{class}\"><title>{}</title><rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" \
         rx=\"6\"/><text class=\"middle\" x=\"{:.0}\" y=\"{:.0}\">{}</text></g>\n",
        escaped(name),
        x + BOX_WIDTH / 2.0,
        y + BOX_HEIGHT / 2.0 + 5.0,
        escaped(&shown)
    )
}

fn line(edge: &DelegationUse, places: &BTreeMap<&str, (usize, usize)>) -> String {
    let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str())) else {
        return String::new();
    };
    let ((x1, y1), (x2, y2)) = (corner(*from), corner(*to));
    let (start, end) = ((x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2.0), (x2, y2 + BOX_HEIGHT / 2.0));
    // Back to the left, or to itself: around the top of the boxes.
    let bend = if end.0 > start.0 { (end.0 - start.0) / 2.0 } else { 60.0 };
    let path = format!(
        "M{:.0} {:.0}C{:.0} {:.0} {:.0} {:.0} {:.0} {:.0}",
        start.0,
        start.1,
        start.0 + bend,
        start.1,
        end.0 - bend,
        end.1,
        end.0,
        end.1
    );
    let times = if edge.uses.count == 1 { "once".to_owned() } else { format!("{} times", number(edge.uses.count)) };
    format!(
        "<path class=\"edge\" d=\"{path}\" marker-end=\"url(#tip)\"/><text class=\"axis middle\" x=\"{:.0}\" \
         y=\"{:.0}\">{times}</text>\n",
        (start.0 + end.0) / 2.0,
        (start.1 + end.1) / 2.0 - 6.0
    )
}
