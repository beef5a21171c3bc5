//! One applied change as one line of InfluxDB's line protocol.

use std::fmt::{self, Write as _};

use crate::model::Timestamp;
use crate::model::dial_rate::hundredths;

/// What is measured: the dial rate before and after an applied decision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub campaign_id: String,
    /// Left out where it is not known.
    pub region: Option<String>,
    /// Lines per idle agent.
    pub old_rate: f64,
    pub new_rate: f64,
    pub at: Timestamp,
}

impl fmt::Display for Point {
    /// `campaign_drift,campaign_id=…[,region=…] old_rate=…,new_rate=…,drift=…,change=… <unix ns>`:
    /// `drift` without a sign, as the project was asked for, `change` with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("campaign_drift")?;
        tag(f, "campaign_id", &self.campaign_id)?;
        tag(f, "region", self.region.as_deref().unwrap_or_default())?;
        // Adding 0 takes the sign from a change of nothing.
        let change = hundredths(self.new_rate - self.old_rate) / 100.0 + 0.0;
        let drift = change.abs();
        // Milliseconds of the years 1678 to 2262 fit as nanoseconds, which is what the protocol can say.
        let nanoseconds = self.at.as_millis().saturating_mul(1_000_000);
        write!(
            f,
            " old_rate={:.2},new_rate={:.2},drift={drift:.2},change={change:.2} {nanoseconds}",
            self.old_rate, self.new_rate
        )
    }
}

/// Writes a tag. The protocol knows no empty value and no quoting: what separates
/// is escaped with a backslash, and so is the backslash, or one before a separator
/// (or at the end) would swallow it. Control characters, a line's end above all,
/// cannot be escaped and become `_`.
fn tag(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    if value.is_empty() {
        return Ok(());
    }
    write!(f, ",{name}=")?;
    for character in value.chars() {
        match character {
            ',' | ' ' | '=' | '\\' => {
                f.write_char('\\')?;
                f.write_char(character)?;
            }
            character if character.is_control() => f.write_char('_')?,
            character => f.write_char(character)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(campaign_id: &str, region: Option<&str>) -> String {
        let region = region.map(str::to_owned);
        let at = Timestamp::from_millis(1_767_323_045_678);
        Point { campaign_id: campaign_id.to_owned(), region, old_rate: 2.0, new_rate: 1.855, at }.to_string()
    }

    #[test]
    fn a_line_is_spelled_as_promised() {
        assert_eq!(
            point("c-1", Some("eu_west_1")),
            "campaign_drift,campaign_id=c-1,region=eu_west_1 old_rate=2.00,new_rate=1.85,drift=0.15,change=-0.15 \
             1767323045678000000"
        );
    }

    #[test]
    fn drift_has_no_sign_and_change_has() {
        let fields = |old_rate: f64, new_rate: f64| {
            let at = Timestamp::from_millis(0);
            let point = Point { campaign_id: "c".to_owned(), region: None, old_rate, new_rate, at };
            point.to_string().split(' ').nth(1).unwrap().to_owned()
        };
        assert_eq!(fields(1.0, 0.93), "old_rate=1.00,new_rate=0.93,drift=0.07,change=-0.07");
        assert_eq!(fields(0.93, 1.0), "old_rate=0.93,new_rate=1.00,drift=0.07,change=0.07");
        assert_eq!(fields(1.0, 1.0), "old_rate=1.00,new_rate=1.00,drift=0.00,change=0.00");
        assert_eq!(fields(1.004, 1.0), "old_rate=1.00,new_rate=1.00,drift=0.00,change=0.00");
    }

    #[test]
    fn an_empty_tag_is_left_out() {
        let without = point("c", None);
        assert!(without.starts_with("campaign_drift,campaign_id=c old_rate="), "{without}");
        assert_eq!(point("c", Some("")), without);
    }

    #[test]
    fn what_separates_is_escaped() {
        for (campaign, expected) in [
            ("a,b", r"a\,b"),
            ("a b", r"a\ b"),
            ("a=b", r"a\=b"),
            (r"a\", r"a\\"),
            (r"a\,b", r"a\\\,b"),
            ("a\"b'", "a\"b'"),
            ("a\nb\r\t\0c", "a_b___c"),
            ("ä€😀", "ä€😀"),
        ] {
            let line = point(campaign, None);
            assert!(line.starts_with(&format!("campaign_drift,campaign_id={expected} old_rate=")), "{line}");
            assert_eq!(line.lines().count(), 1);
        }
    }
}
