//! The OAuth client, from the configuration to the platform's client.

use std::sync::Arc;

use crate::config::{Config, Organization};
use crate::genesys;

/// As given, and read again where they stand in files.
pub(super) fn of(config: &Config) -> genesys::Credentials {
    let (id, secret) = (config.genesys.client_id.clone(), config.genesys.client_secret.clone());
    let Some(files) = config.credential_files.clone() else {
        return genesys::Credentials::fixed(id, secret);
    };
    let given = genesys::OauthClient { id: id.clone(), secret: secret.clone() };
    let reread = move || {
        let (id, secret) = files.read(&id, &secret)?;
        Ok(genesys::OauthClient { id, secret })
    };
    genesys::Credentials::reread(given, Arc::new(reread))
}

/// The same of a further organisation.
pub(super) fn of_further(organization: &Organization) -> genesys::Credentials {
    let (id, secret) = (organization.client_id.clone(), organization.client_secret.clone());
    let credentials = if organization.may_change() {
        let given = genesys::OauthClient { id, secret };
        let organization = organization.clone();
        let reread = move || {
            let (id, secret) = organization.read_again()?;
            Ok(genesys::OauthClient { id, secret })
        };
        genesys::Credentials::reread(given, Arc::new(reread))
    } else {
        genesys::Credentials::fixed(id, secret)
    };
    credentials.of_organization(&organization.name)
}
