"""Holds the requests that trunkline's client has made to the models of the official SDK for Python.

Takes the log of a simulated platform's requests (a JSON list) and the address of the simulator that the SDKs have just
called. A request must be one of the SDK's calls, with parameters that call knows; its body must be what the call's model
holds: no unknown member, none of another type, no value that is none of a list's. And each of its calls must have been made
by the SDKs above, as the simulator's own count of usage tells.
"""

import inspect
import json
import re
import sys
import time
from urllib.parse import parse_qs, urlsplit

import PureCloudPlatformClientV2 as sdk
import PureCloudPlatformClientV2.models as models

CLIENT = ("5d1f0c3a-7e42-4b86-9c55-2b7a6c1e9d04", "simulated-organisation")
PRIMITIVES = {"str": str, "int": int, "float": (int, float), "bool": bool, "datetime": str, "date": str, "object": object}
# What the simulator's log keeps of a body.
MAX_BODY_BYTES = 8192


def calls_of_sdk():
    """(method, path's template) → (query parameters, type of the body)."""
    found = {}
    for name, api in vars(sdk).items():
        if not name.endswith("Api") or not inspect.isclass(api):
            continue
        for _, function in inspect.getmembers(api, inspect.isfunction):
            source = inspect.getsource(function)
            path = re.search(r"resource_path = '([^']+)'", source)
            method = re.search(r"call_api\(resource_path, '(\w+)'", source)
            if path and method:
                body = re.search(r":param (\S+) body:", source)
                parameters = re.findall(r"query_params\['([^']+)'\]", source)
                found[method[1], path[1]] = (set(parameters), body and body[1])
    return found


def fits(template, path):
    names, given = template.split("/"), path.split("/")
    return len(names) == len(given) and all(n.startswith("{") or n == g for n, g in zip(names, given))


def problems_of(value, kind, where):
    """What is wrong about a value for a type as the SDK spells it."""
    listed = re.fullmatch(r"list\[(.+)\]", kind)
    if listed:
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [p for index, item in enumerate(value) for p in problems_of(item, listed[1], f"{where}[{index}]")]
    mapped = re.fullmatch(r"dict\(str, (.+)\)", kind)
    if mapped:
        return [p for name, item in value.items() for p in problems_of(item, mapped[1], f"{where}.{name}")]
    if kind in PRIMITIVES:
        is_wrong = not isinstance(value, PRIMITIVES[kind]) or (isinstance(value, bool) and kind in ("int", "float"))
        return [f"{where} is {value!r}, no {kind}"] if is_wrong else []
    if not isinstance(value, dict):
        return [f"{where} is no {kind}"]
    model = getattr(models, kind)()
    names = {wire: attribute for attribute, wire in model.attribute_map.items()}
    problems = []
    for wire, member in value.items():
        attribute = names.get(wire)
        if attribute is None:
            problems.append(f"{where}.{wire} is no member of {kind}")
        elif member is not None:
            problems += problems_of(member, model.swagger_types[attribute], f"{where}.{wire}")
            setattr(model, attribute, member)
            if getattr(model, attribute) == "outdated_sdk_version":
                problems.append(f"{where}.{wire} has {member!r}, none of its values")
    return problems


def problems_with(entry, calls):
    address = urlsplit(entry["path"])
    found = [key for key in calls if key[0] == entry["method"] and fits(key[1], address.path)]
    if not found:
        return ["is no call of the SDK"], None
    template = max(found, key=lambda key: -key[1].count("{"))
    parameters, kind = calls[template]
    problems = [f"has the unknown parameter {name}" for name in parse_qs(address.query) if name not in parameters]
    text = entry.get("body")
    if text and kind is None and text != "null":
        problems.append("has a body, and the call none")
    elif text and kind and len(text.encode()) >= MAX_BODY_BYTES:
        problems.append("has a body that the log has cut off: make it shorter in the test")
    elif text and kind:
        problems += problems_of(json.loads(text), kind, "body")
    elif kind and not text:
        problems.append(f"lacks its body, a {kind}")
    return problems, template


def called_by_sdks(url):
    host, port = url.removeprefix("http://").split(":")
    client = sdk.api_client.ApiClient()
    client.set_gateway(host, "http", int(port), "", "")
    client.get_client_credentials_token(*CLIENT)
    usage, query = sdk.UsageApi(client), sdk.ApiUsageOrganizationQuery()
    now = time.time()
    moment = lambda at: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))
    query.interval, query.granularity = f"{moment(now - 86400)}/{moment(now + 60)}", "Day"
    execution = usage.post_usage_query(query).execution_id
    while True:
        result = usage.get_usage_query_execution_id_results(execution)
        if result.query_status == "Complete":
            return {(row.http_method, row.template_uri) for row in result.results if row.status200}
        time.sleep(0.05)


def main(path, url):
    with open(path) as file:
        entries = [it for it in json.load(file) if it["path"].startswith("/api/")]
    calls, made, failures, bodies = calls_of_sdk(), set(), [], 0
    for entry in entries:
        problems, template = problems_with(entry, calls)
        failures += [f"{entry['method']} {entry['path']} {problem}" for problem in problems]
        if template:
            made.add(template)
        bodies += bool(entry.get("body"))
    unmade = made - called_by_sdks(url)
    failures += [f"{method} {template} is called by trunkline and not by the SDKs above" for method, template in sorted(unmade)]
    for failure in sorted(set(failures)):
        print(f"conformance (requests): {failure}", file=sys.stderr)
    if failures or not made or not bodies:
        sys.exit(f"conformance (requests): {len(set(failures))} problems in {len(entries)} requests")
    print(f"requests of trunkline's client: {len(entries)} of {len(made)} calls, {bodies} with a body, as the SDK's models have them")


main(*sys.argv[1:])
