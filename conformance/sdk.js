// Every call of the simulated platform, made by Genesys Cloud's official SDK for JavaScript.
'use strict';

const sdk = require('purecloud-platform-client-v2');
const url = new URL(process.argv[2]);
const CLIENT = ['5d1f0c3a-7e42-4b86-9c55-2b7a6c1e9d04', 'simulated-organisation'];
let checked = 0;

function check(isSo, what) {
  checked += 1;
  if (!isSo) throw new Error(what);
}

async function refused(call, status, code) {
  try {
    await call();
  } catch (error) {
    // The SDK throws the error's body itself.
    const body = error;
    check(error.status === status && body.code === code, `${status} ${code} was expected, not ${JSON.stringify(body)}`);
    check(body.contextId && body.message && body.status === status, `an error is incomplete: ${JSON.stringify(body)}`);
    return;
  }
  throw new Error(`was not refused with ${status}`);
}

async function until(ask, isDone, what) {
  for (let turn = 0; turn < 600; turn += 1) {
    const reply = await ask();
    if (isDone(reply)) return reply;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} never ends`);
}

async function control(method, path, body) {
  const reply = await fetch(`${url.origin}/simulator${path}`, { method, body: body && JSON.stringify(body) });
  if (!reply.ok) throw new Error(`${method} ${path}: ${await reply.text()}`);
  return reply.json();
}

const at = (minutes) => new Date(Date.now() + minutes * 60_000).toISOString();
const interval = (before, after) => `${at(-before)}/${at(after)}`;
const anyOf = (dimension, value) => ({ type: 'or', predicates: [{ dimension, value }] });

async function campaigns(campaignId) {
  const api = new sdk.OutboundApi();
  const campaign = await api.getOutboundCampaign(campaignId);
  for (const member of ['name', 'version', 'campaignStatus', 'dialingMode', 'queue', 'maxCallsPerAgentDecimal']) {
    check(campaign[member] !== undefined, `a campaign has no ${member}`);
  }
  await api.patchOutboundCampaign(campaignId, { maxCallsPerAgent: 3.25 });
  const moved = await api.getOutboundCampaign(campaignId);
  check(moved.maxCallsPerAgentDecimal === 3.25, 'the lever moves');
  moved.maxCallsPerAgentDecimal = 3.5;
  const replaced = await api.putOutboundCampaign(campaignId, moved, { useMaxCallsPerAgentDecimal: true });
  check(replaced.maxCallsPerAgentDecimal === 3.5 && replaced.version === moved.version + 1, 'a PUT counts');
  await refused(() => api.putOutboundCampaign(campaignId, moved), 409, 'general.conflict');
  await refused(() => api.getOutboundCampaign('nothing'), 404, 'not.found');
  await refused(() => api.patchOutboundCampaign(campaignId, { maxCallsPerAgent: 0 }), 400, 'invalid.value');

  const listed = await api.getOutboundCampaigns({ pageSize: 50, id: [campaignId, 'nothing'] });
  check(listed.entities.length === 1 && listed.entities[0].id === campaignId, 'a list tells those asked for');

  const stats = await api.getOutboundCampaignStats(campaignId);
  check(stats.contactRate.attempts > 0 && Number.isInteger(stats.idleAgents), 'statistics count');
  const performance = await api.postOutboundCampaignsPerformanceQuery([campaignId]);
  check(performance.entities[0].campaign.id === campaignId, 'performance tells the campaign');
  check(Array.isArray((await api.getOutboundCampaignDiagnostics(campaignId)).campaignErrors), 'diagnostics tell errors');
  const settings = await api.getOutboundSettings();
  check(settings.maxCallsPerAgentDecimal === 15, 'settings tell the ceiling');
  await api.patchOutboundSettings({ version: settings.version, complianceAbandonRateDenominator: 'CALLS_THAT_REACHED_QUEUE' });

  await control('PUT', '/campaign-rules', [
    { name: 'Slow', campaignIds: [campaignId], actionType: 'setCampaignMaxCallsPerAgent', maxCallsPerAgent: 1.5 },
  ]);
  const rules = await api.getOutboundCampaignrules({ pageSize: 25, pageNumber: 1 });
  check(rules.total === 1 && rules.entities[0].enabled, 'rules are listed');
  check((await api.getOutboundCampaignrule(rules.entities[0].id)).name === 'Slow', 'a rule can be asked for');

  await api.postOutboundCampaignStop(campaignId);
  await until(() => api.getOutboundCampaign(campaignId), (it) => it.campaignStatus === 'off', 'stopping');
  await api.postOutboundCampaignStart(campaignId);
  check((await api.getOutboundCampaign(campaignId)).campaignStatus === 'on', 'a campaign starts');
  return campaign.queue.id;
}

async function flows(flowId) {
  const api = new sdk.ArchitectApi();
  const versions = await api.getFlowVersions(flowId, { pageSize: 25, pageNumber: 1 });
  const published = (await api.getFlow(flowId)).publishedVersion.id;
  const target = versions.entities.find((it) => it.datePublishedEnd && it.id !== published).id;
  check((await api.getFlowVersion(flowId, target)).id === target, 'a version can be asked for');
  const operation = await api.postFlowsActionsPublish(flowId, { version: target });
  check(operation.complete === false && operation.actionName === 'PUBLISH', 'a publish takes time');
  await refused(() => api.postFlowsActionsPublish(flowId, { version: published }), 409, 'general.conflict');
  const done = await until(() => api.getFlow(flowId), (it) => it.currentOperation.complete, 'a publish');
  check(done.publishedVersion.id === target && done.currentOperation.actionStatus === 'SUCCESS', 'the version is in force');
  await refused(() => api.postFlowsActionsPublish(flowId, { version: '99.0' }), 404, 'not.found');
  await api.postFlowsActionsUnlock(flowId);
}

async function analytics(campaignId, queueId, flowId) {
  const api = new sdk.AnalyticsApi();
  const calls = {
    interval: interval(60, 60), granularity: 'PT30M', groupBy: ['outboundCampaignId'],
    filter: anyOf('outboundCampaignId', campaignId),
    metrics: ['nOutboundAttempted', 'nOutboundConnected', 'nOutboundAbandoned', 'tAbandon'],
  };
  const counted = await until(() => api.postAnalyticsConversationsAggregatesQuery(calls), (it) => it.results.length > 0, 'waiting for calls');
  check(counted.results[0].group.outboundCampaignId === campaignId, 'calls are told by campaign');
  const visits = {
    interval: interval(60, 60), granularity: 'PT1M', groupBy: ['flowId', 'flowVersion'],
    filter: anyOf('flowId', flowId), metrics: ['nFlow', 'nFlowOutcome', 'nFlowOutcomeFailed'],
  };
  const visited = await until(() => api.postAnalyticsFlowsAggregatesQuery(visits), (it) => it.results.length > 0, 'waiting for flows');
  check(visited.results[0].group.flowVersion, 'flows are told by version');
  const observed = await api.postAnalyticsQueuesObservationsQuery({ filter: anyOf('queueId', queueId), metrics: ['oOnQueueUsers', 'oMemberUsers', 'oWaiting'] });
  check(observed.results[0].data.some((it) => it.metric === 'oMemberUsers'), 'queues tell their members');
  check((await new sdk.RoutingApi().getRoutingQueue(queueId)).memberCount > 0, 'a queue can be asked for');

  const conversationId = 'abc00000-0000-4000-8000-000000000001';
  await control('POST', '/conversations', [
    { conversationId, conversationStart: at(-10), conversationEnd: at(-5), availableAt: at(-5), campaignId, flowId, flowVersion: '12.0' },
  ]);
  const query = {
    interval: interval(1440, 60), order: 'asc', orderBy: 'conversationStart',
    conversationFilters: [anyOf('conversationId', conversationId)], paging: { pageSize: 100, pageNumber: 1 },
  };
  const found = await api.postAnalyticsConversationsDetailsQuery(query);
  check(found.totalHits === 1 && found.conversations[0].participants.length > 0, 'details are found');
  await refused(() => api.postAnalyticsConversationsDetailsQuery({ ...query, interval: interval(60 * 24 * 40, 0) }), 400, 'invalid.value');
  const single = await api.getAnalyticsConversationsDetails({ id: [conversationId] });
  check(single.conversations[0].conversationId === conversationId, 'details are found by id');
  const { paging, ...job } = query;
  const { jobId } = await api.postAnalyticsConversationsDetailsJobs(job);
  check((await api.getAnalyticsConversationsDetailsJobsAvailability()).dataAvailabilityDate, 'jobs tell how far they know');
  await until(() => api.getAnalyticsConversationsDetailsJob(jobId), (it) => it.state === 'FULFILLED', 'a job');
  const results = await api.getAnalyticsConversationsDetailsJobResults(jobId, { pageSize: 1000 });
  check(results.conversations.length === 1 && results.cursor === undefined, 'a job has results');
  await api.deleteAnalyticsConversationsDetailsJob(jobId);
}

async function organization(campaignId) {
  const usage = new sdk.UsageApi();
  const { executionId } = await usage.postUsageQuery({ interval: interval(1440, 60), granularity: 'Day' });
  const done = await until(() => usage.getUsageQueryExecutionIdResults(executionId), (it) => it.queryStatus === 'Complete', 'a usage query');
  check(done.results.some((it) => it.requests > 0 && it.templateUri), 'usage is told by call');
  const audits = new sdk.AuditApi();
  const asked = { interval: interval(1440, 60), serviceName: 'Outbound', filters: [{ property: 'EntityId', value: campaignId }] };
  const now = await audits.postAuditsQueryRealtime(asked);
  check(now.entities.every((it) => it.entity.id === campaignId) && now.entities.length > 0, 'changes are told at once');
  const { id } = await audits.postAuditsQuery(asked);
  await until(() => audits.getAuditsQueryTransactionId(id), (it) => it.state === 'Succeeded', 'an audit query');
  check((await audits.getAuditsQueryTransactionIdResults(id)).entities.length > 0, 'changes are told by query');
  const limits = await new sdk.OrganizationApi().getOrganizationsLimitsNamespace('platform.api');
  check(limits.entities[0].value > 0, 'limits are told');
}

async function main() {
  const client = sdk.ApiClient.instance;
  client.setGateway({ host: url.hostname, protocol: 'http', port: Number(url.port) });
  await client.loginClientCredentialsGrant(...CLIENT);
  const world = await control('GET', '/campaigns');
  const campaignId = world.campaigns[1].id;
  const flowId = world.flows.find((it) => it.name === 'Billing').id;
  await until(() => control('GET', '/campaigns'), (it) => it.campaigns[1].attempts > 0, 'waiting for calls');
  const queueId = await campaigns(campaignId);
  await flows(flowId);
  await analytics(campaignId, queueId, flowId);
  await organization(campaignId);
  console.log(`JavaScript SDK: ${checked} checks passed`);
}

main().catch((error) => {
  const said = error.contextId ? JSON.stringify(error) : error.stack;
  console.error(`conformance (JavaScript): ${said}`);
  process.exit(1);
});
