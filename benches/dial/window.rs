//! Campaign windows as the windowing stage writes them, about 480 bytes each.

use trunkline::model::Timestamp;

/// One full window of `campaign`.
pub(crate) fn text(campaign: &str, observed_at: Timestamp) -> String {
    let first = Timestamp::from_millis(observed_at.as_millis() - 270_000);
    format!(
        "{{\"campaignId\":\"{campaign}\",\"organizationId\":\"0d9b3c4e-1111-4222-8333-444455556666\",\
         \"region\":\"eu_west_1\",\"firstObservedAt\":\"{first}\",\"observedAt\":\"{observed_at}\",\
         \"answerRates\":[0.3,0.29,0.31,0.3,0.32,0.31,0.3,0.29,0.3,0.31],\"meanAnswerRate\":0.303,\
         \"answered\":12,\"abandoned\":0,\"agentsIdle\":4,\"agentsBusy\":16,\"dialRate\":1.8,\
         \"minDialRate\":0.5,\"maxDialRate\":3.0,\"revision\":\"\\\"7-9a3f\\\"\"}}"
    )
}
