//! `trunkline evaluate pacing` as a user runs it, in its short form.

use std::process::{Command, Output};

fn evaluate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline"));
    command.args(["evaluate", "pacing"]).args(arguments).output().expect("it runs")
}

fn rows(output: &Output) -> Vec<serde_json::Value> {
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    read["rows"].as_array().expect("rows").clone()
}

#[test]
fn the_default_policy_passes_the_gate_and_keeps_agents_busier_than_the_dialers_people_use() {
    let seed = ["--gate", "--json", "--seed", "9000", "--days", "3", "--agents", "5,20"];
    let output = evaluate(&[&seed[..], &["--worlds", "walk,jump", "--policies", "adaptive,pacing"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = rows(&output);
    assert_eq!(rows.len(), 8);
    for row in rows.iter().filter(|row| row["policy"] == "pacing") {
        let paired = &row["overAdaptive"];
        assert!(paired["utilisation"]["mean"].as_f64() > Some(0.0), "{row}");
        assert!(paired["abandonment"]["mean"].as_f64() < Some(0.0), "{row}");
    }
}

#[test]
fn a_program_is_a_policy_and_one_that_dials_all_it_can_fails_the_gate() {
    let greedy = r#"while read -r window; do echo '{"dialRate": 10}'; done"#;
    let short = ["--json", "--days", "1", "--agents", "20", "--worlds", "walk", "--policies", "progressive"];
    let output = evaluate(&[&short[..], &["--gate", "--program", greedy]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("1 of 1 days over 3 %"), "{said}");
    assert!(rows(&output)[1]["abandonment"].as_f64() > Some(0.1), "{output:?}");

    for (program, reason) in [
        ("true", "has ended"),
        ("while read -r window; do echo no; done", "answered \"no\""),
        (r#"while read -r window; do echo '{"dialRate": -1}'; done"#, "rates are 0 or more"),
    ] {
        let output = evaluate(&[&short[..], &["--program", program]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason) || said.contains("does not read"), "{program}: {said}");
    }
}
