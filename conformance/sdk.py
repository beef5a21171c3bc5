"""Every call of the simulated platform, made by Genesys Cloud's official SDK for Python.

The SDK reads each reply into its models: a member of another type or a value none of its lists has is a failure here.
"""

import json
import sys
import time
import urllib.request
from datetime import datetime, timedelta, timezone

import PureCloudPlatformClientV2 as sdk
from PureCloudPlatformClientV2.rest import ApiException

CLIENT = ("5d1f0c3a-7e42-4b86-9c55-2b7a6c1e9d04", "simulated-organisation")
checked = 0


def check(is_so, what):
    global checked
    checked += 1
    if not is_so:
        sys.exit(f"conformance (Python): {what}")


def find_unread(value, where="reply"):
    """An enumerated value the SDK does not know is read as `outdated_sdk_version`."""
    if isinstance(value, dict):
        for name, member in value.items():
            find_unread(member, f"{where}.{name}")
    elif isinstance(value, list):
        for member in value:
            find_unread(member, f"{where}[]")
    else:
        check(value != "outdated_sdk_version", f"{where} has a value the SDK does not know")


def read(reply):
    """What the SDK has read, as it would write it again."""
    body = sdk.api_client.ApiClient().sanitize_for_serialization(reply)
    find_unread(body)
    return body


def refused(call, status, code):
    try:
        call()
    except ApiException as error:
        body = json.loads(error.body)
        check(error.status == status and body["code"] == code, f"{status} {code} was expected, not {error.body}")
        for member in ("message", "status", "contextId", "details", "errors", "messageParams"):
            check(member in body, f"an error has no {member}: {error.body}")
        return body
    sys.exit(f"conformance (Python): {call} was not refused with {status}")


def until(ask, is_done, what):
    for _ in range(600):
        reply = ask()
        if is_done(reply):
            return reply
        time.sleep(0.05)
    sys.exit(f"conformance (Python): {what} never ends")


def control(url, method, path, body=None):
    request = urllib.request.Request(f"{url}/simulator{path}", method=method, data=json.dumps(body).encode())
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def iso(at):
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def interval(hours_before=1, hours_after=1):
    now = datetime.now(timezone.utc)
    return f"{iso(now - timedelta(hours=hours_before))}/{iso(now + timedelta(hours=hours_after))}"


def campaigns(client, url, campaign_id):
    api = sdk.OutboundApi(client)
    campaign = api.get_outbound_campaign(campaign_id)
    shown = read(campaign)
    for member in ("name", "version", "campaignStatus", "dialingMode", "abandonRate", "queue", "maxCallsPerAgentDecimal"):
        check(shown.get(member) is not None, f"a campaign has no {member}")

    patch = sdk.CampaignPatchRequest()
    patch.max_calls_per_agent = 2.25
    check(api.patch_outbound_campaign(campaign_id, patch) is None, "a PATCH has no body")
    campaign = api.get_outbound_campaign(campaign_id)
    check(campaign.max_calls_per_agent_decimal == 2.25 and campaign.max_calls_per_agent == 2, "the lever moves")
    campaign.max_calls_per_agent_decimal = 2.5
    replaced = api.put_outbound_campaign(campaign_id, campaign, use_max_calls_per_agent_decimal=True)
    check(replaced.max_calls_per_agent_decimal == 2.5 and replaced.version == campaign.version + 1, "a PUT counts")
    refused(lambda: api.put_outbound_campaign(campaign_id, campaign), 409, "general.conflict")
    refused(lambda: api.get_outbound_campaign("nothing"), 404, "not.found")
    patch.max_calls_per_agent = 99.0
    refused(lambda: api.patch_outbound_campaign(campaign_id, patch), 400, "invalid.value")

    listed = read(api.get_outbound_campaigns(page_size=50, id=[campaign_id, "nothing"]))
    check([it["id"] for it in listed["entities"]] == [campaign_id] and listed["total"] == 1, "a list tells those asked for")
    check(listed["entities"][0]["maxCallsPerAgentDecimal"] == 2.5, "a list tells the lever")

    stats = read(api.get_outbound_campaign_stats(campaign_id))
    check(stats["contactRate"]["attempts"] > 0 and stats["idleAgents"] is not None, "statistics count")
    performance = read(api.post_outbound_campaigns_performance_query([campaign_id]))
    check(performance["entities"][0]["campaign"]["id"] == campaign_id, "performance tells the campaign")
    check("campaignErrors" in read(api.get_outbound_campaign_diagnostics(campaign_id)), "diagnostics tell errors")

    settings = api.get_outbound_settings()
    check(read(settings)["complianceAbandonRateDenominator"] == "CALLS_THAT_REACHED_QUEUE", "settings tell the denominator")
    change = sdk.OutboundSettings()
    change.version = settings.version
    change.compliance_abandon_rate_denominator = "ALL_CALLS"
    api.patch_outbound_settings(change)
    check(api.get_outbound_settings().compliance_abandon_rate_denominator == "ALL_CALLS", "settings can be changed")

    rule = {"name": "Slow", "campaignIds": [campaign_id], "actionType": "setCampaignMaxCallsPerAgent", "maxCallsPerAgent": 1.5}
    control(url, "PUT", "/campaign-rules", [rule])
    rules = read(api.get_outbound_campaignrules(page_size=25, page_number=1))
    action = rules["entities"][0]["campaignRuleActions"][0]
    check(action["parameters"]["maxCallsPerAgent"] == 1.5, "rules tell what they do")
    check(read(api.get_outbound_campaignrule(rules["entities"][0]["id"]))["enabled"], "a rule can be asked for")

    api.post_outbound_campaign_stop(campaign_id)
    check(api.get_outbound_campaign(campaign_id).campaign_status in ("stopping", "off"), "a campaign stops")
    until(lambda: api.get_outbound_campaign(campaign_id).campaign_status, lambda it: it == "off", "stopping")
    api.post_outbound_campaign_start(campaign_id)
    check(api.get_outbound_campaign(campaign_id).campaign_status == "on", "a campaign starts")
    return shown["queue"]["id"]


def flows(client, flow_id):
    api = sdk.ArchitectApi(client)
    listed = api.get_flow_versions(flow_id, page_size=25, page_number=1)
    versions = read(listed)["entities"]
    check(isinstance(versions[0]["dateCreated"], int), "dateCreated is in milliseconds")
    published = api.get_flow(flow_id).published_version.id
    target = next(it["id"] for it in versions if it.get("datePublishedEnd") and it["id"] != published)
    check(read(api.get_flow_version(flow_id, target))["id"] == target, "a version can be asked for")
    operation = api.post_flows_actions_publish(flow_id, version=target)
    check(read(operation)["complete"] is False and operation.action_name == "PUBLISH", "a publish takes time")
    refused(lambda: api.post_flows_actions_publish(flow_id, version=published), 409, "general.conflict")
    done = until(lambda: api.get_flow(flow_id), lambda it: it.current_operation.complete, "a publish")
    check(read(done)["currentOperation"]["actionStatus"] == "SUCCESS", "a publish succeeds")
    check(done.published_version.id == target and done.current_operation.id == operation.id, "the version is in force")
    refused(lambda: api.post_flows_actions_publish(flow_id, version="99.0"), 404, "not.found")
    api.post_flows_actions_unlock(flow_id)


def predicate(kind, dimension, value):
    made = kind()
    made.dimension, made.value = dimension, value
    return made


def filter_of(kind, predicates):
    made = kind()
    made.type, made.predicates = "or", predicates
    return made


def analytics(client, url, campaign_id, queue_id, flow_id):
    api = sdk.AnalyticsApi(client)
    query = sdk.ConversationAggregationQuery()
    query.interval, query.granularity, query.group_by = interval(), "PT30M", ["outboundCampaignId"]
    query.filter = filter_of(sdk.ConversationAggregateQueryFilter, [predicate(sdk.ConversationAggregateQueryPredicate, "outboundCampaignId", campaign_id)])
    query.metrics = ["nOutboundAttempted", "nOutboundConnected", "nOutboundAbandoned", "tAbandon"]
    counted = until(lambda: read(api.post_analytics_conversations_aggregates_query(query)), lambda it: it.get("results"), "waiting for calls")
    check(counted["results"][0]["group"]["outboundCampaignId"] == campaign_id, "calls are told by campaign")
    metrics = {it["metric"] for piece in counted["results"][0]["data"] for it in piece["metrics"]}
    check("nOutboundAttempted" in metrics, "calls are counted")

    query = sdk.FlowAggregationQuery()
    query.interval, query.granularity, query.group_by = interval(), "PT1M", ["flowId", "flowVersion", "exitReason"]
    query.filter = filter_of(sdk.FlowAggregateQueryFilter, [predicate(sdk.FlowAggregateQueryPredicate, "flowId", flow_id)])
    query.metrics = ["nFlow", "nFlowOutcome", "nFlowOutcomeFailed"]
    counted = until(lambda: read(api.post_analytics_flows_aggregates_query(query)), lambda it: it.get("results"), "waiting for flows")
    check({"flowId", "flowVersion", "exitReason"} <= set(counted["results"][0]["group"]), "flows are told by version and exit reason")

    query = sdk.QueueObservationQuery()
    query.filter = filter_of(sdk.QueueObservationQueryFilter, [predicate(sdk.QueueObservationQueryPredicate, "queueId", queue_id)])
    query.metrics = ["oOnQueueUsers", "oMemberUsers", "oWaiting", "oInteracting"]
    observed = read(api.post_analytics_queues_observations_query(query))
    check(any(it["metric"] == "oMemberUsers" for it in observed["results"][0]["data"]), "queues tell their members")
    check(read(sdk.RoutingApi(client).get_routing_queue(queue_id))["memberCount"] > 0, "a queue can be asked for")

    conversation = "abc00000-0000-4000-8000-000000000000"
    now = datetime.now(timezone.utc)
    start, end = iso(now - timedelta(minutes=10)), iso(now - timedelta(minutes=5))
    control(url, "POST", "/conversations", [{
        "conversationId": conversation, "conversationStart": start, "conversationEnd": end, "availableAt": end,
        "campaignId": campaign_id, "originatingDirection": "outbound", "flowId": flow_id, "flowVersion": "12.0",
        "userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "queueId": queue_id, "wrapUpMs": 45000,
    }])
    by_id = filter_of(sdk.ConversationDetailQueryFilter, [predicate(sdk.ConversationDetailQueryPredicate, "conversationId", conversation)])
    query = sdk.ConversationQuery()
    query.interval, query.order, query.order_by = interval(24, 1), "asc", "conversationStart"
    query.conversation_filters = [by_id]
    query.paging = sdk.PagingSpec()
    query.paging.page_size, query.paging.page_number = 100, 1
    found = read(api.post_analytics_conversations_details_query(query))
    check(found["totalHits"] == 1 and found["conversations"][0]["conversationId"] == conversation, "details are found")
    purposes = {it["purpose"] for it in found["conversations"][0]["participants"]}
    check({"customer", "ivr", "agent"} <= purposes, "details have participants")
    query.paging.page_size = 101
    refused(lambda: api.post_analytics_conversations_details_query(query), 400, "invalid.value")
    single = read(api.get_analytics_conversations_details(id=conversation))
    check(single["conversations"][0]["conversationId"] == conversation, "details are found by id")

    job = sdk.AsyncConversationQuery()
    job.interval, job.conversation_filters = interval(24, 1), [by_id]
    job_id = api.post_analytics_conversations_details_jobs(job).job_id
    read(api.get_analytics_conversations_details_jobs_availability())
    until(lambda: read(api.get_analytics_conversations_details_job(job_id)), lambda it: it["state"] == "FULFILLED", "a job")
    results = read(api.get_analytics_conversations_details_job_results(job_id, page_size=1000))
    check(len(results["conversations"]) == 1 and results.get("cursor") is None, "a job has results")
    api.delete_analytics_conversations_details_job(job_id)


def organization(client, campaign_id):
    usage = sdk.UsageApi(client)
    query = sdk.ApiUsageOrganizationQuery()
    query.interval, query.granularity = interval(24, 1), "Day"
    execution = usage.post_usage_query(query)
    done = until(lambda: read(usage.get_usage_query_execution_id_results(execution.execution_id)), lambda it: it["queryStatus"] == "Complete", "a usage query")
    check(any(it["requests"] > 0 and it["templateUri"] for it in done["results"]), "usage is told by call")

    audits = sdk.AuditApi(client)
    property_filter = sdk.AuditQueryFilter()
    property_filter.pcProperty = "EntityId"
    property_filter.value = campaign_id
    for kind in ("AuditQueryRequest", "AuditRealtimeQueryRequest"):
        query = getattr(sdk, kind)()
        query.interval, query.service_name, query.filters = interval(24, 1), "Outbound", [property_filter]
        if kind == "AuditRealtimeQueryRequest":
            entities = read(audits.post_audits_query_realtime(query))["entities"]
        else:
            transaction = read(audits.post_audits_query(query))["id"]
            until(lambda: read(audits.get_audits_query_transaction_id(transaction)), lambda it: it["state"] == "Succeeded", "an audit query")
            entities = read(audits.get_audits_query_transaction_id_results(transaction))["entities"]
        check(entities and all(it["entity"]["id"] == campaign_id for it in entities), f"{kind} tells changes")
    limits = read(sdk.OrganizationApi(client).get_organizations_limits_namespace("platform.api"))
    check(limits["entities"][0]["value"] > 0, "limits are told")


def main(url):
    host, port = url.removeprefix("http://").split(":")
    client = sdk.api_client.ApiClient()
    client.set_gateway(host, "http", int(port), "", "")
    client.get_client_credentials_token(*CLIENT)
    check(client.access_token, "a token is given")
    world = control(url, "GET", "/campaigns")
    campaign_id = world["campaigns"][0]["id"]
    flow_id = next(it["id"] for it in world["flows"] if it["name"] == "Main menu")
    until(lambda: control(url, "GET", "/campaigns"), lambda it: it["campaigns"][0]["attempts"] > 0, "waiting for calls")
    queue_id = campaigns(client, url, campaign_id)
    flows(client, flow_id)
    analytics(client, url, campaign_id, queue_id, flow_id)
    organization(client, campaign_id)
    print(f"Python SDK: {checked} checks passed")


main(sys.argv[1])
