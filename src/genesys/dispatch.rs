//! Whose client a call goes to, where one deployment serves several organisations.
//!
//! A client is one organisation's: its hosts, its OAuth client, tokens, budget and breakers are its own.
//! The first organisation's also knows those of the others, by name, and passes on what is about
//! their objects (`name:id`, [`model::organization`](crate::model::organization)). Nobody else has to
//! know that there are several.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::client::Client;
use crate::health::{Health, Part};
use crate::model::organization::{qualified, split};

/// Further organisations' clients, by name.
pub(super) type Others = Arc<BTreeMap<String, Client>>;

/// Which organisation is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Before the ids of its objects; the first organisation has none.
    pub name: Option<String>,
    /// Named in facts.
    pub id: Option<String>,
    /// Named in facts.
    pub region: Option<String>,
    /// Others are served beside it: that it cannot be reached does not make an instance unready.
    pub among_several: bool,
}

impl Identity {
    /// What readiness says of a part of its client.
    pub(super) fn part(&self, part: &str, health: &Health) -> Part {
        let name = match &self.name {
            Some(name) => format!("genesys.{name}.{part}"),
            None => format!("genesys.{part}"),
        };
        if self.among_several { health.part_among_several(&name) } else { health.part(&name) }
    }
}

impl Client {
    /// The same, which passes on what is about objects of further organisations to their clients.
    #[must_use]
    pub fn serving(self, others: impl IntoIterator<Item = Client>) -> Self {
        let named =
            others.into_iter().filter_map(|client| Some((client.organization().name.clone()?, client)));
        Self { others: Arc::new(named.collect()), ..self }
    }

    /// Which organisation it calls itself.
    pub fn organization(&self) -> &Identity {
        &self.inner.identity
    }

    /// To whom an object belongs.
    pub fn organization_of(&self, id: &str) -> &Identity {
        self.of(id).0.organization()
    }

    /// How many times as far apart as configured polls of this object are to come.
    pub fn poll_stretch(&self, id: &str) -> f64 {
        self.of(id).0.inner.pace.stretch()
    }

    /// One client for each organisation.
    pub fn organizations(&self) -> impl Iterator<Item = &Client> {
        std::iter::once(self).chain(self.others.values())
    }

    /// The client that knows the object, and what the object is called there.
    pub(super) fn of<'i>(&self, id: &'i str) -> (&Client, &'i str) {
        let of_other = || split(id).and_then(|(name, own)| Some((self.others.get(name)?, own)));
        of_other().unwrap_or((self, id))
    }

    /// Objects by the organisation that has them, each by its own id there. Every organisation is told
    /// of, also with no object at all.
    pub(super) fn by_organization<'i>(
        &self,
        ids: impl IntoIterator<Item = &'i str>,
    ) -> Vec<(&Client, Vec<&'i str>)> {
        let mut groups: Vec<(&Client, Vec<&'i str>)> =
            self.organizations().map(|client| (client, Vec::new())).collect();
        for id in ids {
            let (client, own) = self.of(id);
            let group = groups.iter_mut().find(|(of, _)| Arc::ptr_eq(&of.inner, &client.inner));
            group.expect("one of ours").1.push(own);
        }
        groups
    }
}

/// Members of the platform's documents that hold ids by which we know objects.
const IDS: [&str; 5] = ["conversationId", "campaignId", "outboundCampaignId", "flowId", "queueId"];

/// Spells ids in a document of an organisation as they are spelled here.
pub(super) fn qualify(document: &mut Value, name: Option<&str>) {
    match document {
        Value::Array(items) => items.iter_mut().for_each(|item| qualify(item, name)),
        Value::Object(members) => {
            for (member, value) in members {
                match value {
                    Value::String(id) if IDS.contains(&member.as_str()) => {
                        *id = qualified(name, id).into_owned()
                    }
                    other => qualify(other, name),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::budget::{BucketShape, InProcessPermits};
    use super::super::{Credentials, Settings};
    use super::*;

    fn client(name: Option<&str>) -> Client {
        let settings = Settings {
            base_url: "http://127.0.0.1:9".to_owned(),
            credentials: Credentials::fixed("id", "secret"),
            organization: Identity { name: name.map(str::to_owned), ..Identity::default() },
            ..Settings::default()
        };
        let shape = BucketShape::new(settings.requests_per_minute, settings.budget_window);
        Client::new(&settings, Arc::new(InProcessPermits::new(shape)), &Health::default()).unwrap()
    }

    #[tokio::test]
    async fn objects_go_to_their_organisations_client_and_unknown_names_to_the_first() {
        let first = client(None).serving([client(Some("emea"))]);
        let of = |id: &'static str| {
            let (client, own) = first.of(id);
            (client.organization().name.clone(), own)
        };
        assert_eq!(of("emea:a"), (Some("emea".to_owned()), "a"));
        for own in ["a", "apac:a", "emea:", "EMEA:a"] {
            assert_eq!(of(own), (None, own));
        }
        let grouped: Vec<_> =
            first.by_organization(["b", "emea:a", "emea:c"]).into_iter().map(|(_, ids)| ids).collect();
        assert_eq!(grouped, [vec!["b"], vec!["a", "c"]]);
    }

    #[test]
    fn documents_speak_of_objects_as_we_do() {
        let mut document = json!({ "conversationId": "c", "participants": [{ "sessions": [
            { "outboundCampaignId": "k", "flow": { "flowId": "f", "flowVersion": "1.0" }, "userId": "u" }] }] });
        qualify(&mut document, Some("emea"));
        let session = &document["participants"][0]["sessions"][0];
        assert_eq!(
            (&document["conversationId"], &session["outboundCampaignId"]),
            (&json!("emea:c"), &json!("emea:k"))
        );
        assert_eq!((&session["flow"]["flowId"], &session["userId"]), (&json!("emea:f"), &json!("u")));
    }
}
