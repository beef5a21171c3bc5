//! Several organisations, and ids that name them.

use super::*;

fn loaded(organizations: &str, rest: &str) -> Result<Config, String> {
    let file = format!("{rest}\n[genesys]\norganizations = [{organizations}]");
    let (source, _file) = source(&file, MINIMUM);
    load(&source, Needs::Everything).map_err(|problems| problems.to_string())
}

const EMEA: &str = "{ name = \"emea\", dialect = \"platform\", region = \"eu_west_1\", client_id = \"i\", \
     client_secret = \"s\", organization_id = \"o-1\" }";
const APAC: &str =
    "{ name = \"apac\", base_url = \"http://127.0.0.1:2\", client_id = \"i\", client_secret = \"s\" }";

#[test]
fn ids_belong_to_the_organisation_they_name() {
    let both = format!("{EMEA}, {APAC}");
    let config = loaded(&both, "[dial]\ncampaigns = [\"a\", \"emea:a\", \"Not a name:a\"]").unwrap();
    let of = |id: &'static str| config.genesys.organization_of(id);
    assert_eq!([of("a"), of("emea:a"), of("apac:b:c")], [None, Some("emea"), Some("apac")]);
    assert_eq!(
        config.rollback.settling,
        Duration::from_secs(180),
        "one of them speaks the platform's dialect"
    );
    for (section, key) in
        [("dial", "campaigns"), ("rollback", "flows"), ("rollback", "polled_flows"), ("route", "queues")]
    {
        let told = loaded(&both, &format!("[{section}]\n{key} = [\"amer:a\"]")).unwrap_err();
        assert!(told.contains(&format!("{section}.{key}")) && told.contains("emea, apac"), "{told}");
    }
}

#[test]
fn one_organisation_goes_on_as_it_was() {
    let config = loaded("", "[dial]\ncampaigns = [\"emea:a\"]").unwrap();
    assert_eq!(config.genesys.organization_of("emea:a"), None, "an id like any other");
    assert_eq!(config.rollback.settling, Duration::from_secs(10));
}

#[test]
fn events_of_two_organisations_can_be_told_apart() {
    let apac = APAC.replace(" }", ", organization_id = \"o-1\" }");
    let told = loaded(&format!("{EMEA}, {apac}"), "").unwrap_err();
    assert!(told.contains("genesys.organizations") && told.contains("organization_id"), "{told}");
}
