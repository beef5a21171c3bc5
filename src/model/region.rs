//! Genesys Cloud's regions and the hosts that answer for them.

/// A region of Genesys Cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// As settings and facts spell it: `eu_west_1`.
    pub name: &'static str,
    /// Behind `api.` and `login.`.
    pub domain: &'static str,
}

/// Every region.
pub static REGIONS: &[Region] = &[
    Region { name: "us_east_1", domain: "mypurecloud.com" },
    Region { name: "us_east_2", domain: "use2.us-gov-pure.cloud" },
    Region { name: "us_west_2", domain: "usw2.pure.cloud" },
    Region { name: "ca_central_1", domain: "cac1.pure.cloud" },
    Region { name: "mx_central_1", domain: "mxc1.pure.cloud" },
    Region { name: "sa_east_1", domain: "sae1.pure.cloud" },
    Region { name: "eu_west_1", domain: "mypurecloud.ie" },
    Region { name: "eu_west_2", domain: "euw2.pure.cloud" },
    Region { name: "eu_central_1", domain: "mypurecloud.de" },
    Region { name: "eu_central_2", domain: "euc2.pure.cloud" },
    Region { name: "eusc_de_east_1", domain: "edee1.eusc-pure.cloud" },
    Region { name: "me_central_1", domain: "mec1.pure.cloud" },
    Region { name: "ap_south_1", domain: "aps1.pure.cloud" },
    Region { name: "ap_southeast_1", domain: "apse1.pure.cloud" },
    Region { name: "ap_southeast_2", domain: "mypurecloud.com.au" },
    Region { name: "ap_northeast_1", domain: "mypurecloud.jp" },
    Region { name: "ap_northeast_2", domain: "apne2.pure.cloud" },
    Region { name: "ap_northeast_3", domain: "apne3.pure.cloud" },
];

impl Region {
    /// By its name, also spelled with hyphens or in other case: `eu-west-1`.
    pub fn named(name: &str) -> Option<Region> {
        let name = name.trim().replace('-', "_");
        REGIONS.iter().copied().find(|region| region.name.eq_ignore_ascii_case(&name))
    }

    /// The region that answers at this URL, where it is one's API host.
    pub fn at(base_url: &str) -> Option<Region> {
        let host = host_of(base_url)?;
        REGIONS.iter().copied().find(|region| host.strip_prefix("api.") == Some(region.domain))
    }

    pub fn api_url(self) -> String {
        format!("https://api.{}", self.domain)
    }
}

/// Where the organisation behind this API host gives tokens out: the host `login.…` beside one
/// that is called `api.…`; any other host, such as a gateway, gives them out itself.
pub fn login_url_beside(base_url: &str) -> String {
    match host_of(base_url) {
        Some(host) if host.starts_with("api.") => base_url.replacen("://api.", "://login.", 1),
        _ => base_url.to_owned(),
    }
}

fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    rest.split(['/', ':']).next().filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_region_is_known_by_its_name_and_by_its_host() {
        let region = Region::named("EU-West-1").unwrap();
        assert_eq!(region.api_url(), "https://api.mypurecloud.ie");
        assert_eq!(login_url_beside(&region.api_url()), "https://login.mypurecloud.ie");
        assert_eq!(Region::at("https://api.mypurecloud.ie/"), Some(region));
        assert_eq!(Region::at("https://api.mypurecloud.ie:443"), Some(region));
        for elsewhere in ["https://mypurecloud.ie", "https://login.mypurecloud.ie", "http://127.0.0.1:1", ""]
        {
            assert_eq!(Region::at(elsewhere), None, "{elsewhere}");
        }
        assert_eq!(Region::named("europe"), None);
    }

    #[test]
    fn tokens_come_from_the_login_host_beside_the_apis() {
        assert_eq!(login_url_beside("https://api.usw2.pure.cloud"), "https://login.usw2.pure.cloud");
        assert_eq!(login_url_beside("http://127.0.0.1:8089"), "http://127.0.0.1:8089");
        assert_eq!(login_url_beside("https://gateway.example.com/api."), "https://gateway.example.com/api.");
    }

    #[test]
    fn no_two_regions_share_a_name_or_a_domain() {
        let names: BTreeSet<_> = REGIONS.iter().map(|region| region.name).collect();
        let domains: BTreeSet<_> = REGIONS.iter().map(|region| region.domain).collect();
        assert_eq!((names.len(), domains.len()), (REGIONS.len(), REGIONS.len()));
    }
}
