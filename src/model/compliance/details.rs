//! A campaign's call as its conversation tells it: the platform's details where they have parts,
//! else the events' times and the seed dialect's flat details.

use serde_json::Value;

use super::{AnsweredBy, Call};
use crate::model::Timestamp;
use crate::model::enriched::EnrichedConversation;

/// Greatest length of an identity or a number that is kept, in characters.
const MOST_CHARACTERS: usize = 200;
/// Parts of a customer's session before anybody answers.
const BEFORE_ANSWER: &[&str] = &["dialing", "contacting", "scheduled", "delay", "system"];

impl Call {
    /// `None` for what is no voice call of a campaign, and for one that is not over and has not
    /// reached an agent: what becomes of it is still open.
    pub fn of(conversation: &EnrichedConversation<'_>) -> Option<Self> {
        let details = conversation.details.as_deref().unwrap_or(&Value::Null);
        let parts = Parts::of(details);
        let campaign_id = (conversation.campaign_id.as_deref())
            .or_else(|| text(parts.customer?, "outboundCampaignId"))
            .or_else(|| text(details, "campaignId"))?;
        let is_voice = |media: &str| media.eq_ignore_ascii_case("voice");
        if !conversation.media_type.as_deref().is_none_or(is_voice) {
            return None;
        }
        let placed_at = time(details, "conversationStart").unwrap_or(conversation.first_event_at);
        let ended_at = time(details, "conversationEnd")
            .or_else(|| conversation.ended.then_some(conversation.last_event_at));
        let agent_at = parts.agent_at.or(conversation.agent_joined_at);
        let reached_agent = agent_at.is_some() || parts.has_agent || details.get("userId").is_some();
        if ended_at.is_none() && !reached_agent {
            return None;
        }
        let answered_by = parts.answered_by();
        let answered_at = parts.answered_at.or(conversation.customer_joined_at).or(Some(placed_at));
        Some(Self {
            conversation_id: cut(&conversation.conversation_id),
            campaign_id: cut(campaign_id),
            contact_id: parts.customer.and_then(|session| text(session, "outboundContactId")).map(cut),
            from_number: parts.customer.and_then(|session| text(session, "ani")).map(cut),
            to_number: parts.customer.and_then(|session| text(session, "dnis")).map(cut),
            placed_at,
            answered_at: answered_at.filter(|_| answered_by != AnsweredBy::Nobody),
            queued_at: parts.queued_at.or(conversation.queue_joined_at),
            agent_at,
            message_at: parts.flow_at,
            ended_at,
            answered_by,
            reached_agent,
            abandoned_by_platform: parts.abandoned_by_platform(),
            parts_told: parts.are_told,
        })
    }
}

/// What the participants of a conversation's details say.
#[derive(Default)]
struct Parts<'d> {
    are_told: bool,
    /// The session of the called person.
    customer: Option<&'d Value>,
    answered_at: Option<Timestamp>,
    queued_at: Option<Timestamp>,
    has_agent: bool,
    agent_at: Option<Timestamp>,
    flow_at: Option<Timestamp>,
}

impl<'d> Parts<'d> {
    fn of(details: &'d Value) -> Self {
        let participants = list(details, "participants");
        let mut parts = Self { are_told: !participants.is_empty(), ..Self::default() };
        for participant in participants {
            for session in list(participant, "sessions") {
                match text(participant, "purpose").unwrap_or_default() {
                    "customer" | "external" => parts.customer_session(session),
                    "acd" => earlier(&mut parts.queued_at, starts(session, |_| true)),
                    "agent" | "user" => {
                        parts.has_agent = true;
                        earlier(&mut parts.agent_at, starts(session, |kind| kind == "interact"));
                    }
                    _ => parts.flow_session(session),
                }
            }
        }
        parts
    }

    fn customer_session(&mut self, session: &'d Value) {
        let of_campaign = session.get("outboundCampaignId").is_some();
        if self.customer.is_none() || of_campaign {
            self.customer = Some(session);
            self.answered_at = starts(session, |kind| !BEFORE_ANSWER.contains(&kind));
        }
    }

    /// A flow that the called person got into.
    fn flow_session(&mut self, session: &Value) {
        if session.get("flow").is_none() {
            return;
        }
        earlier(&mut self.flow_at, starts(session, |_| true));
        let counted = list(session, "metrics").iter().find(|metric| text(metric, "name") == Some("nFlow"));
        earlier(&mut self.flow_at, counted.and_then(|metric| time(metric, "emitDate")));
    }

    /// The platform's call analysis, else whether the line was connected.
    fn answered_by(&self) -> AnsweredBy {
        let Some(customer) = self.customer else { return AnsweredBy::Person };
        let word = text(customer, "dispositionName").and_then(|name| name.rsplit('.').next());
        match word.map(str::to_ascii_lowercase).as_deref() {
            Some("person" | "lineconnected") => AnsweredBy::Person,
            Some("machine" | "fax") => AnsweredBy::Machine,
            Some("busy" | "noanswer" | "sit" | "notfound" | "timeout" | "failed" | "disconnect") => {
                AnsweredBy::Nobody
            }
            _ if self.answered_at.is_some() || self.has_agent => AnsweredBy::Person,
            _ => AnsweredBy::Nobody,
        }
    }

    /// Metrics that did not occur are absent; a session without any says nothing.
    fn abandoned_by_platform(&self) -> Option<bool> {
        let metrics = list(self.customer?, "metrics");
        let counts = |name: &str| {
            let of_name = metrics.iter().find(|metric| text(metric, "name") == Some(name));
            of_name.and_then(|metric| metric.get("value")?.as_f64()).is_some_and(|value| value > 0.0)
        };
        counts("nOutboundConnected").then(|| counts("nOutboundAbandoned"))
    }
}

fn earlier(known: &mut Option<Timestamp>, other: Option<Timestamp>) {
    *known = [*known, other].into_iter().flatten().min();
}

/// When the first segment of these types began.
fn starts(session: &Value, of: impl Fn(&str) -> bool) -> Option<Timestamp> {
    let segments = list(session, "segments").iter();
    let fitting = segments.filter(|segment| of(text(segment, "segmentType").unwrap_or_default()));
    fitting.filter_map(|segment| time(segment, "segmentStart")).min()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

fn time(value: &Value, name: &str) -> Option<Timestamp> {
    text(value, name)?.parse().ok()
}

fn cut(text: &str) -> String {
    text.chars().take(MOST_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Disposition, MessageHeard, Rules};
    use super::*;

    const RULES: Rules = Rules { greeting_allowance_ms: 0 };

    fn conversation(details: Value) -> EnrichedConversation<'static> {
        let value = json!({
            "conversationId": "c", "firstEventAt": "2026-01-02T03:04:05.678Z",
            "lastEventAt": "2026-01-02T03:09:05.678Z", "ended": true,
            "enrichedAt": "2026-01-02T03:10:00.000Z", "enrichedUpTo": "2026-01-02T03:09:05.678Z",
            "details": details,
        });
        serde_json::from_str(Box::leak(value.to_string().into_boxed_str())).unwrap()
    }

    /// As the platform's SDKs pass it, without the agent.
    fn platform(participants: Value) -> EnrichedConversation<'static> {
        conversation(json!({
            "conversationId": "c", "conversationStart": "2026-01-02T03:04:05.678Z",
            "conversationEnd": "2026-01-02T03:09:05.678Z", "originatingDirection": "outbound",
            "participants": participants,
        }))
    }

    fn customer(disposition: &str, metrics: &[&str]) -> Value {
        let metrics: Vec<Value> = metrics.iter().map(|name| json!({"name": name, "value": 1})).collect();
        json!({"purpose": "customer", "sessions": [{
            "mediaType": "voice", "ani": "tel:+441234567890", "dnis": "tel:+447700900000",
            "outboundCampaignId": "campaign", "outboundContactId": "77",
            "dispositionName": format!("disposition.classification.callable.{disposition}"), "metrics": metrics,
            "segments": [
                {"segmentType": "dialing", "segmentStart": "2026-01-02T03:04:05.678Z", "segmentEnd": "2026-01-02T03:04:15.678Z"},
                {"segmentType": "interact", "segmentStart": "2026-01-02T03:04:15.678Z", "segmentEnd": "2026-01-02T03:09:05.678Z"},
            ],
        }]})
    }

    fn part(purpose: &str, at: &str) -> Value {
        json!({"purpose": purpose, "sessions": [{"flow": {"flowId": "f"}, "segments": [
            {"segmentType": "alert", "segmentStart": "2026-01-02T03:04:15.900Z"},
            {"segmentType": "interact", "segmentStart": at},
        ]}]})
    }

    #[test]
    fn a_call_that_an_agent_took_has_its_times_and_numbers() {
        let parts = json!([
            customer("person", &["nOutboundAttempted", "nOutboundConnected"]),
            part("acd", "2026-01-02T03:04:16.000Z"),
            part("agent", "2026-01-02T03:04:17.600Z"),
        ]);
        let call = Call::of(&platform(parts)).unwrap();
        assert_eq!(call.answered_at.unwrap().to_string(), "2026-01-02T03:04:15.678Z");
        assert_eq!(call.queued_at.unwrap().to_string(), "2026-01-02T03:04:15.900Z");
        assert_eq!(
            call.agent_at.unwrap().to_string(),
            "2026-01-02T03:04:17.600Z",
            "ringing is not there yet"
        );
        assert_eq!((call.campaign_id.as_str(), call.contact_id.as_deref()), ("campaign", Some("77")));
        assert_eq!(call.to_number.as_deref(), Some("tel:+447700900000"));
        assert_eq!(
            (call.disposition(RULES), call.abandoned_by_platform),
            (Disposition::PassedToAgent, Some(false))
        );
    }

    #[test]
    fn an_abandoned_call_tells_what_the_person_heard() {
        let connected = &["nOutboundConnected", "nOutboundAbandoned"];
        let silent = Call::of(&platform(json!([customer("person", connected)]))).unwrap();
        assert_eq!(
            (silent.disposition(RULES), silent.heard(RULES)),
            (Disposition::Abandoned, MessageHeard::Silence)
        );
        assert_eq!(silent.abandoned_by_platform, Some(true));
        let flow = json!({"purpose": "ivr", "sessions": [{"flow": {"flowId": "f"}, "segments": [],
            "metrics": [{"name": "nFlow", "value": 1, "emitDate": "2026-01-02T03:04:17.000Z"}]}]});
        let played = Call::of(&platform(json!([customer("person", &[]), flow]))).unwrap();
        assert_eq!((played.heard(RULES), played.abandoned_by_platform), (MessageHeard::InTime, None));
    }

    #[test]
    fn call_analysis_says_who_answered() {
        for (word, expected) in [
            ("machine", Disposition::Machine),
            ("busy", Disposition::NotAnswered),
            ("noanswer", Disposition::NotAnswered),
            ("lineconnected", Disposition::Abandoned),
            ("something.new", Disposition::Abandoned),
        ] {
            let call = Call::of(&platform(json!([customer(word, &[])]))).unwrap();
            assert_eq!(call.disposition(RULES), expected, "{word}");
            assert_eq!(call.answered_at.is_none(), expected == Disposition::NotAnswered, "{word}");
        }
    }

    #[test]
    fn the_seed_dialect_tells_of_agents_and_not_of_parts() {
        let flat = |user: Option<&str>| {
            let mut details = json!({"conversationId": "c", "campaignId": "campaign",
                "conversationStart": "2026-01-02T03:04:05.678Z", "conversationEnd": "2026-01-02T03:04:05.878Z"});
            if let Some(user) = user {
                details["userId"] = user.into();
            }
            Call::of(&conversation(details)).unwrap()
        };
        assert_eq!(flat(Some("agent")).disposition(RULES), Disposition::PassedToAgent);
        let abandoned = flat(None);
        assert_eq!(
            (abandoned.disposition(RULES), abandoned.heard(RULES)),
            (Disposition::Abandoned, MessageHeard::NotTold)
        );
        assert_eq!(abandoned.abandoned_in_queue(), None);
    }

    #[test]
    fn what_is_no_call_of_a_campaign_or_still_open_is_none() {
        let flat = json!({"campaignId": "campaign"});
        assert!(Call::of(&conversation(json!({}))).is_none());
        let chat = EnrichedConversation { media_type: Some("CHAT".into()), ..conversation(flat.clone()) };
        assert!(Call::of(&chat).is_none());
        let open = EnrichedConversation { ended: false, ..conversation(flat) };
        assert!(Call::of(&open).is_none());
        let talking = EnrichedConversation { agent_joined_at: Some(open.first_event_at), ..open };
        assert_eq!(Call::of(&talking).unwrap().disposition(RULES), Disposition::PassedToAgent);
    }
}
