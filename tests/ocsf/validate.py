"""Holds OCSF events, a line of JSON each, against the schema as it was published.

usage: validate.py FILE

The schema is that of OCSF 1.8.0 as `ocsf-json-schema` carries it, with what 1.9.0 added and the daemon uses written out
below. Unknown attributes, missing ones, wrong types and values that no enumeration has are faults. Prints each with its
line, and how many events were looked at; exits 1 where there is a fault.
"""

import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

STRING = {"type": "string"}


def enumeration(*values):
    return {"type": "integer", "enum": list(values)}


def strict(properties, **more):
    return {"type": "object", "properties": properties, "additionalProperties": False, **more}


# What 1.9.0 has and 1.8.0 has not.
FINGERPRINT = {
    "encoding": STRING,
    "encoding_id": enumeration(0, 1, 2, 3, 99),
    "serialization": STRING,
    "serialization_id": enumeration(*range(9), 99),
}
ADDED = {
    "ai_agent": strict(
        {
            "uid": STRING,
            "instance_uid": STRING,
            "name": STRING,
            "type": STRING,
            "type_id": enumeration(0, 1, 2, 3, 4, 99),
            "version": STRING,
            "charter": {"$ref": "#/$defs/file"},
        },
        required=["uid"],
    ),
    "prev_event": strict(
        {"uid": STRING, "type_uid": {"type": "integer"}, "fingerprint": {"$ref": "#/$defs/fingerprint"}},
        required=["uid"],
    ),
    "attestation": strict(
        {
            "uid": STRING,
            "authority_uid": STRING,
            "chain_uid": STRING,
            "fingerprint": {"$ref": "#/$defs/fingerprint"},
            "prev_event": {"$ref": "#/$defs/prev_event"},
        },
        required=["fingerprint"],
    ),
}
# Profiles that a class may have since 1.9.0: any class this one, and those of three categories the other.
OF_AGENTS = {"system", "network", "application"}


def schema_of(published, event):
    """The schema of an event's class, with the profiles that it says it has."""
    name = published.lookup_class_name_from_uid(event["class_uid"])
    about = published.schema.schema["classes"][name]
    profiles = set(event["metadata"].get("profiles", []))
    known = set(about["profiles"]) | {"record_integrity"}
    if about["category"] in OF_AGENTS:
        known.add("ai_operation")
    if profiles - known:
        raise jsonschema.ValidationError(f"{name} has no profile {sorted(profiles - known)}")
    schema = published.get_class_schema(name, sorted(profiles - {"record_integrity"}))
    definitions = schema.setdefault("$defs", {})
    for needed in ("file", "fingerprint"):
        if needed not in definitions:
            of_object = published.get_object_schema(needed, [])
            definitions.update(of_object.pop("$defs", {}))
            definitions[needed] = of_object
    definitions["fingerprint"]["properties"].update(FINGERPRINT)
    definitions.update(ADDED)
    if "record_integrity" in profiles:
        schema["properties"]["attestation"] = {"$ref": "#/$defs/attestation"}
    if "ai_operation" in profiles:
        schema["properties"]["ai_agent"] = {"$ref": "#/$defs/ai_agent"}
    if "evidences" in definitions:
        definitions["evidences"]["properties"]["ai_agent"] = {"$ref": "#/$defs/ai_agent"}
    return schema


def main(path):
    published = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.8.0"))
    looked_at, faults, schemas = 0, 0, {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            event = json.loads(line)
            looked_at += 1
            try:
                key = (event["class_uid"], tuple(event["metadata"].get("profiles", [])))
                if key not in schemas:
                    schemas[key] = jsonschema.Draft202012Validator(schema_of(published, event))
                found = [f"{error.json_path}: {error.message[:300]}" for error in schemas[key].iter_errors(event)]
            except (KeyError, ValueError, jsonschema.ValidationError) as error:
                found = [str(error)]
            for fault in found:
                faults += 1
                print(f"line {number} ({event.get('metadata', {}).get('event_code')}): {fault}")
    print(f"{looked_at} events, {faults} faults")
    return 1 if faults or not looked_at else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
