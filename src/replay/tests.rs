use super::*;

fn pairs(set: &[(&str, &str)]) -> Vec<(String, String)> {
    set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn numbers() -> Numbers {
    Numbers {
        dial: crate::stages::dialing::rules::Rules::default(),
        dial_tick_ms: 30_000,
        rollback: crate::stages::rollback::rule::Rule::default(),
        lag: crate::stages::lag::rules::Thresholds::default(),
        delivery: crate::stages::delivery::canary::Plan::default(),
    }
}

#[test]
fn numbers_survive_being_written_down_to_the_policys_digest() {
    let text = serde_json::to_string(&numbers()).unwrap();
    let again: Numbers = serde_json::from_str(&text).unwrap();
    assert_eq!(again, numbers());
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
}

#[test]
fn what_can_be_changed_is_named_as_the_rules_name_it_however_it_is_spelled() {
    let changed = |of, set: &[(&str, &str)]| {
        let change = Change::of(of, &pairs(set), None)?;
        numbers().with(of, &change)
    };
    assert_eq!(changed(Loop::Rollback, &[("threshold", "0.03")]).unwrap().rollback.threshold, 0.03);
    for spelled in ["errorAgeMs", "error_age_ms", "error-age-ms"] {
        assert_eq!(changed(Loop::Lag, &[(spelled, "5000")]).unwrap().lag.error_age_ms, 5_000);
    }
    assert_eq!(changed(Loop::Delivery, &[("abort_at", "20")]).unwrap().delivery.abort_at, 20.0);
    for (of, name, value) in [
        (Loop::Rollback, "thresholds", "0.03"),
        (Loop::Rollback, "threshold", "high"),
        (Loop::Rollback, "threshold", "-1"),
        (Loop::Rollback, "minute", "1"),
        (Loop::Rollback, "policy", "best"),
        (Loop::Lag, "polls", "1.5"),
    ] {
        let told = changed(of, &[(name, value)]).unwrap_err().0;
        assert!(!told.is_empty(), "{name}={value}: {told}");
    }
}

#[test]
fn a_policy_is_one_of_the_loops_own() {
    let rollback = Change::of(Loop::Rollback, &[], Some("consecutive")).unwrap();
    let rule = numbers().with(Loop::Rollback, &rollback).unwrap().rollback;
    assert_eq!(rule.policy, crate::stages::rollback::rule::Policy::Consecutive);
    assert!(Change::of(Loop::Dial, &[], Some("proportional")).unwrap().dial.policy.is_some());
    assert!(Change::of(Loop::Dial, &[], Some("adaptive")).is_err());
    assert!(Change::of(Loop::Lag, &[], Some("consecutive")).is_err());
    assert!(Change::of(Loop::Dial, &pairs(&[("goal", "0.05"), ("cap", "0.03")]), None).is_err());
}

#[test]
fn a_recording_that_is_none_says_where() {
    let read = |text: &str| read_lines(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
    assert!(read("").contains("line 1"));
    assert!(read("{\"recording\":2}\n").contains("form 2"));
    let header = Header::new("0", Timestamp::from_millis(0), Timestamp::from_millis(1), vec![numbers()]);
    let text = format!("{}\n{{}}\n", serde_json::to_string(&header).unwrap());
    let (read, mut lines) = read_lines(text.as_bytes()).unwrap();
    assert_eq!(read, header);
    assert!(lines.next().unwrap().unwrap_err().to_string().contains("line 2"));
    assert!(lines.next().is_none());
}
