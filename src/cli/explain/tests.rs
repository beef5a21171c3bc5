use super::*;
use crate::model::decision::{Loop, Policy};
use serde_json::json;

fn entry() -> LedgerEntry {
    let at = Timestamp::from_millis(1_767_323_045_678);
    let decision_id = DecisionId::derive(Loop::Dial, "campaign-7", 42, at);
    LedgerEntry {
        decision_id,
        sequence: 42,
        r#loop: "dial".into(),
        key: "campaign-7".into(),
        name: None,
        organization: None,
        mode: "live".into(),
        decided_at: at,
        event_time: at,
        action: "set_dial_rate".into(),
        reason: "above_target".into(),
        parameters: json!({"previousDialRate": 2.0, "dialRate": 1.7}),
        inputs: json!({"answerRates": [0.5, 0.4], "meanAnswerRate": 0.45, "dialRate": 2.0,
                      "minDialRate": 0.5, "maxDialRate": 3.0}),
        policy: Policy { name: "proportional".into(), version: 1, hash: "0123456789abcdef".into() },
        settings_revision: 0,
        cause_ids: json!(["trunkline.campaign-windows.v1/0/41"]),
        expires_at: at,
        outcome: Some(OutcomeEntry {
            decision_id,
            r#loop: "dial".into(),
            key: "campaign-7".into(),
            sequence: 42,
            status: "applied".into(),
            reason: "confirmed".into(),
            attempts: 2,
            request: Some(json!({"method": "PUT", "path": "/api/v2/outbound/campaigns/campaign-7",
                                 "ifMatch": "\"7\"", "body": {"dialRate": 1.7}})),
            response: Some(json!({"status": 200, "body": "ok\u{1b}]0;owned\u{7}", "correlationId": "c-1"})),
            requested_at: Some(at),
            finished_at: at,
            effect: Some(json!({"previousDialRate": 2.0, "dialRate": 1.7})),
            waited: Some(json!({"turnMs": 200, "budgetMs": 12_400, "pausesMs": 5_000,
                                "pausedFor": "HTTP 503"})),
        }),
        verification: None,
        position: "trunkline.dial-decisions.v1/0/41".into(),
        names: Default::default(),
    }
}

fn chained() -> LedgerEntry {
    let limits = json!([
        {"limit": "budget", "value": 3.0}, {"limit": "brake", "value": 3.0}, {"limit": "slew", "value": 2.5},
    ]);
    let shadow = json!({"policy": "proportional", "policyVersion": 2, "policyHash": "0", "dialRate": 3,
        "reason": "at_greatest_rate",
        "chain": {"raw": 7.5, "limits": [{"limit": "maximum", "value": 3.0}], "bound": "maximum"}});
    let parameters = json!({"previousDialRate": 2.0, "dialRate": 2.5,
        "chain": {"raw": 4.5, "limits": limits, "bound": "slew"},
        "holds": ["lag_error:trunkline-dialing"], "shadow": shadow});
    LedgerEntry { parameters, ..entry() }
}

fn known() -> Known {
    Known {
        now: entry().expires_at,
        rule: Some(json!({"target": 0.85})),
        names: [("campaign-7".to_owned(), "Renewals".to_owned())].into(),
    }
}

#[test]
fn without_an_outcome_it_says_why() {
    let now = entry().expires_at;
    let told = |of: &str, now| without_outcome(&LedgerEntry { r#loop: of.into(), ..entry() }, now);
    assert!(told("route", now).contains("carried out by being given"));
    assert!(told("lag", now).contains("nothing is changed"));
    assert!(told("dial", now).starts_with("none yet: the role actuator"));
    let late = now.plus(std::time::Duration::from_secs(1));
    assert!(told("rollback", late).contains("is the role rollback-actuator running"));
}

#[test]
fn a_rule_of_other_numbers_is_not_made_up() {
    let text = render(&entry(), &Known { rule: None, ..known() }, false);
    assert!(text.contains("not those of the configuration here") && !text.contains("0.85"), "{text}");
}

#[test]
fn everything_that_was_asked_for_is_told() {
    let text = render(&entry(), &known(), false);
    for expected in [
        &entry().decision_id.to_string(),
        "dial of Renewals (campaign-7), number 42",
        "target               0.85",
        "2 × 0.85 ÷ 0.450 = 3.78, limits 0.5 to 3",
        "0123456789abcdef",
        "set_dial_rate: 2 → 1.7 lines per idle agent",
        "answerRates          0.5 0.4",
        "proportional version 1",
        "the configuration alone (revision 0)",
        "applied, 2 attempts",
        "PUT /api/v2/outbound/campaigns/campaign-7 at 2026-01-02T03:04:05.678Z",
        "  If-Match           \"7\"",
        "{\"dialRate\":1.7}",
        "waited               0.2 s for its turn, 12.4 s for the shared budget, 5.0 s between tries (HTTP 503)",
        "came back            200",
        "trunkline.dial-decisions.v1/0/41",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let told = render(&chained(), &known(), false);
    for expected in [
        "came to be           4.5 → 3 by budget → 2.5 by slew (bound)",
        "held by              lag_error:trunkline-dialing",
        "in shadow            proportional version 2: 3, at_greatest_rate",
        "  came to be         7.5 → 3 by maximum (bound)",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in\n{told}");
    }
    let open = LedgerEntry { outcome: None, ..entry() };
    assert!(render(&open, &known(), false).contains("none yet"));
}

#[test]
fn only_our_own_colours_reach_a_terminal() {
    assert!(!render(&entry(), &known(), false).contains('\u{1b}'));
    let coloured = render(&entry(), &known(), true);
    assert!(coloured.contains("\u{1b}[32mapplied\u{1b}[0m"));
    assert!(coloured.contains("ok\\u{1b}]0;owned\\u{7}"), "{coloured}");
    assert!(!coloured.contains("\u{1b}]"));
}
