//! What is left of the month's call attempts, where anybody has said how many there are.

use super::Finding;
use crate::clock;
use crate::config::Config;
use crate::model::Timestamp;
use crate::model::allowance::{Allowances, Counted, Standing};
use crate::postgres::Database;
use crate::postgres::allowances::AttemptsCounted;

/// Campaigns looked at, and those that are named.
const MOST_CAMPAIGNS: i64 = 10_000;
const MOST_NAMED: usize = 5;

pub(super) async fn finding(database: &Database, config: &Config) -> Option<Finding> {
    let allowances = config.compliance.attempts();
    if allowances.all.per_month.is_none() && !allowances.limit_campaigns() {
        return None;
    }
    let what = "allowance: call attempts of this month";
    Some(match database.attempts_of_month(MOST_CAMPAIGNS).await {
        Ok(campaigns) => Finding::note(what, told(&allowances, &campaigns, clock::now())),
        Err(error) => Finding::bad(what, error),
    })
}

fn told(allowances: &Allowances, campaigns: &[AttemptsCounted], at: Timestamp) -> String {
    let all = Counted {
        month_to_date: campaigns.iter().map(|campaign| campaign.month_to_date).sum(),
        per_second: campaigns.iter().map(|campaign| campaign.per_second).sum(),
    };
    let standing = Standing::new(allowances.all, all, at);
    let mut text =
        format!("{} so far, about {} by the month's end", standing.month_to_date, standing.forecast);
    if let (Some(allowance), Some(left)) = (standing.allowance, standing.left) {
        text.push_str(&format!("; {left} of {allowance} are left (compliance.attempts_per_month)"));
    }
    let of = |campaign: &&AttemptsCounted| {
        Standing::new(allowances.of_campaign(&campaign.campaign_id), campaign.counted(), at).is_used_up()
    };
    let used_up: Vec<&str> =
        campaigns.iter().filter(of).map(|campaign| campaign.campaign_id.as_str()).collect();
    if !used_up.is_empty() {
        let named = used_up.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "; {} campaigns have used up their own and dial at their least rate, among them {named}",
            used_up.len()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allowance::Terms;

    #[test]
    fn what_is_left_and_whose_are_used_up_is_told() {
        let counted = |id: &str, month_to_date| AttemptsCounted {
            campaign_id: id.to_owned(),
            month_to_date,
            per_second: 0.0,
        };
        let mut allowances = Allowances {
            all: Terms { per_month: Some(100), price: None },
            campaigns: [("a".to_owned(), 30)].into(),
            every_other: None,
        };
        let campaigns = [counted("a", 30), counted("b", 50)];
        let text = |allowances: &Allowances| told(allowances, &campaigns, Timestamp::default());
        assert!(text(&allowances).contains("80 so far, about 80 by the month's end; 20 of 100 are left"));
        assert!(
            text(&allowances)
                .contains("1 campaigns have used up their own and dial at their least rate, among them a")
        );
        allowances =
            Allowances { all: Terms::default(), campaigns: [("a".to_owned(), 31)].into(), ..allowances };
        assert_eq!(text(&allowances), "80 so far, about 80 by the month's end");
    }
}
