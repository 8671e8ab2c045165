//! Charts, drawn as SVG.

use super::markup::{escaped, moment, number};
use crate::review::agent::report::{Day, Review, UsedGrant};

/// Days that are drawn, the last ones.
const DAYS: usize = 366;
/// Grants that are drawn.
const GRANTS: usize = 60;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const BOTTOM: f64 = 26.0;
const TOP: f64 = 12.0;

/// What was done each day: in scope, not judged, out of scope, one upon the other; days without anything stand empty.
pub(super) fn activity(days: &[Day]) -> String {
    let days = every_day(days);
    let days = days.get(days.len().saturating_sub(DAYS)..).unwrap_or_default();
    let most = days.iter().map(total).max().unwrap_or(0);
    if most == 0 {
        return "<p>Nothing was done.</p>\n".to_owned();
    }
    let top = nice(most);
    let (plot_height, plot_width) = (HEIGHT - BOTTOM - TOP, WIDTH - LEFT);
    let step = plot_width / days.len() as f64;
    let y = |value: f64| TOP + plot_height * (1.0 - value / top as f64);
    let mut drawn = String::new();
    for part in 0..=2u32 {
        let value = top as f64 * f64::from(part) / 2.0;
        drawn += &format!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text class=\"axis end\" \
             x=\"{1}\" y=\"{2:.1}\">{3}</text>\n",
            y(value),
            LEFT - 6.0,
            y(value) + 4.0,
            short(value)
        );
    }
    for (at, day) in days.iter().enumerate() {
        drawn += &bar(day, LEFT + step * at as f64, step, &y);
    }
    // As many dates as have room.
    let every = days.len().div_ceil(8).max(1);
    for (at, day) in days.iter().enumerate().filter(|(at, _)| at % every == 0) {
        let x = LEFT + step * (at as f64 + 0.5);
        let anchor = if at == 0 { "axis" } else { "axis middle" };
        let x = if at == 0 { LEFT } else { x };
        drawn +=
            &format!("<text class=\"{anchor}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>\n", HEIGHT - 8.0, escaped(&day.day));
    }
    let between = days.first().zip(days.last()).map(|(first, last)| format!(", from {} to {}", first.day, last.day));
    let label = format!("Actions a day{}", between.unwrap_or_default());
    format!(
        "<p class=\"legend\"><i class=\"in\"></i>in scope <i class=\"none\"></i>not judged <i class=\"out\"></i>out of scope \
         <i class=\"found\"></i>findings</p>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{}\">\n{drawn}</svg></div>\n",
        escaped(&label)
    )
}

fn bar(day: &Day, x: f64, step: f64, y: &impl Fn(f64) -> f64) -> String {
    let gap = if step > 4.0 { (step * 0.18).min(6.0) } else { 0.0 };
    // One session a month should not fill the page.
    let width = (step - gap).clamp(0.5, 48.0);
    let x = x + (step - width) / 2.0;
    let mut drawn = format!(
        "<g><title>{}: {} in scope, {} not judged, {} out of scope, {} findings</title>",
        escaped(&day.day),
        number(day.in_scope),
        number(day.not_judged),
        number(day.out_of_scope),
        number(day.findings)
    );
    let mut below = 0.0;
    for (class, count) in [("in", day.in_scope), ("none", day.not_judged), ("out", day.out_of_scope)] {
        if count == 0 {
            continue;
        }
        let (bottom, top) = (y(below), y(below + count as f64));
        // What is out of scope is seen, be it one among thousands.
        let height = (bottom - top).max(if class == "out" { 2.0 } else { 0.0 });
        drawn += &format!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>",
            bottom - height
        );
        below += count as f64;
    }
    if day.findings > 0 {
        drawn += &format!(
            "<circle class=\"found\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\"/>",
            x + width / 2.0,
            (y(below) - 7.0).max(5.0)
        );
    }
    drawn + "</g>\n"
}

fn total(day: &Day) -> u64 {
    day.in_scope + day.out_of_scope + day.not_judged
}

/// Every day from the first to the last, those without anything included.
fn every_day(days: &[Day]) -> Vec<Day> {
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Vec::new() };
    let parsed = |day: &Day| day.day.parse::<jiff::civil::Date>().ok();
    let (Some(first), Some(last)) = (parsed(first), parsed(last)) else { return days.to_vec() };
    let mut all = Vec::new();
    let mut known = days.iter().peekable();
    let mut date = first;
    while date <= last && all.len() < 10 * DAYS {
        let text = date.to_string();
        match known.next_if(|day| day.day == text) {
            Some(day) => all.push(day.clone()),
            None => all.push(Day { day: text, ..Day::default() }),
        }
        let Ok(next) = date.tomorrow() else { break };
        date = next;
    }
    all
}

/// A number at or above `most` that reads well: 1, 2 or 5 and zeros.
fn nice(most: u64) -> u64 {
    let mut scale = 1u64;
    loop {
        for step in [2, 5, 10] {
            let bound = scale.saturating_mul(step);
            if bound >= most {
                return bound;
            }
        }
        scale = scale.saturating_mul(10);
        if scale > u64::MAX / 10 {
            return most;
        }
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{}G", value / 1e9),
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value => value.to_string(),
    }
}

/// Each grant with a bar as long as the logarithm of its uses; those without any last.
pub(super) fn grants(review: &Review) -> String {
    let mut grants: Vec<&UsedGrant> = review.last_used.iter().collect();
    if grants.is_empty() {
        return "<p>There is no grant.</p>\n".to_owned();
    }
    grants.sort_by(|one, other| {
        (other.uses.count, other.uses.last, &one.grant).cmp(&(one.uses.count, one.uses.last, &other.grant))
    });
    let most = grants.first().map_or(1, |grant| grant.uses.count.max(1));
    let left_out = grants.len().saturating_sub(GRANTS);
    // The unused are what a review is about: they are drawn whatever else is.
    let is_drawn = |(at, grant): &(usize, &&UsedGrant)| *at < GRANTS || grant.uses.is_none();
    let row = |grant: &UsedGrant| {
        let share = if grant.uses.count == 0 { 0.0 } else { 100.0 * ln(grant.uses.count) / ln(most) };
        let (class, when) = match grant.uses.last {
            Some(last) => ("in", format!("{} · last {}", number(grant.uses.count), moment(last))),
            None => ("never", "never used".to_owned()),
        };
        format!(
            "<li class=\"{class}\"><span class=\"name\"><em>{}</em> <code>{}</code></span><span class=\"bar\"><i \
             style=\"width:{share:.1}%\"></i></span><span class=\"when\">{when}</span></li>\n",
            escaped(&grant.grant.grant),
            escaped(&grant.grant.text)
        )
    };
    let drawn = grants.iter().enumerate().filter(is_drawn).map(|(_, grant)| row(grant)).collect::<String>();
    let more = if left_out > 0 {
        format!("<p class=\"quiet\">Of those used, the {GRANTS} most used are shown.</p>\n")
    } else {
        String::new()
    };
    format!(
        "<p class=\"quiet\">Bars grow with the logarithm of how often a grant was used.</p>\n<ol class=\"bars\">\n{drawn}</ol>\n{more}"
    )
}

/// So that one use has a bar too.
fn ln(count: u64) -> f64 {
    (count as f64 + 1.0).ln()
}
