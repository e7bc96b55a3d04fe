"""The keys of each type of node, for the JSON Schema. Pure data.

Only what people write is here; exports have more, and may: no key is forbidden.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

__all__ = ["CONDITION", "MODEL", "NODE_KEYS", "SELECTOR", "TEXT"]

Schema: TypeAlias = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"type": ["string", "null"], "description": description, **more}


def _choice(description: str, *values: str) -> Schema:
    """Suggested to editors; other values pass, as they do when a file is read."""
    return {"description": description, "anyOf": [{"enum": list(values)}, {}]}


def _flag(description: str) -> Schema:
    return {"type": ["boolean", "null"], "description": description}


def _number(description: str) -> Schema:
    return {"type": ["number", "string", "null"], "description": description}


def _list(description: str, items: Schema) -> Schema:
    return {"type": ["array", "null"], "description": description, "items": items}


def _object(description: str, /, *required: str, **properties: Schema) -> Schema:
    made: Schema = {"type": ["object", "null"], "description": description}
    if properties:
        made["properties"] = properties
    if required:
        made["required"] = list(required)
    return made


SELECTOR: Final[Schema] = {
    "type": ["array", "null"],
    "items": {"type": "string"},
    "description": "A node's id (or sys, env, conversation), a name, perhaps a path: [ask, text].",
}

TEXT: Final[Schema] = _text("A text; {{#node.name#}} stands for a variable.")

MODEL: Final[Schema] = {
    "type": "object",
    "description": "The model to call. [models] or a binding says which one here stands for it.",
    "properties": {
        "provider": _text("Such as openai, or langgenius/openai/openai."),
        "name": _text("Such as gpt-4o."),
        "mode": {"enum": ["chat", "completion", None], "description": "chat unless told."},
        "completion_params": _object("temperature, max_tokens, top_p, stop, ..."),
    },
    "required": ["name"],
}

_OPERATORS: Final = (
    *("contains", "not contains", "start with", "end with", "is", "is not"),
    *("empty", "not empty", "in", "not in", "all of"),
    *("=", "≠", ">", "<", "≥", "≤", "null", "not null", "exists", "not exists"),
)

CONDITION: Final[Schema] = _object(
    "What must hold of a variable.",
    variable_selector=SELECTOR,
    comparison_operator=_choice("How the two are compared.", *_OPERATORS),
    value={"description": "What it is compared with; texts may have placeholders."},
)

_CONDITIONS: Final = _list("The conditions.", CONDITION)
_LOGIC: Final = _choice("Whether all of them must hold, or one.", "and", "or")

_VARIABLES: Final = _list(
    "The variables that it sees, by the names that it calls them.",
    _object("One of them.", variable=_text("Its name here."), value_selector=SELECTOR),
)

_MEMORY: Final = _object(
    "Send the conversation so far along.",
    window=_object(
        "How much of it.",
        enabled=_flag("Whether there is a limit beside the model's."),
        size=_number("Messages."),
    ),
    query_prompt_template=_text("The user's message; {{#sys.query#}} unless told."),
)

_VISION: Final = _object(
    "Send pictures along.",
    enabled=_flag("Whether it does."),
    configs=_object(
        "Which ones.",
        variable_selector=SELECTOR,
        detail=_choice("How closely they are looked at.", "low", "high"),
    ),
)

_PROMPT_MESSAGE: Final = _object(
    "One message.",
    role=_choice("Who says it.", "system", "user", "assistant"),
    text=TEXT,
    edition_type=_choice("How the text is written.", "basic", "jinja2"),
    jinja2_text=_text("The text, if it is a Jinja2 template."),
)

_INPUT: Final = _object(
    "One field of the form.",
    "variable",
    variable=_text("Its name: {{#start.name#}}, if the node's id is start."),
    type=_choice(
        "What is asked for.",
        *("text-input", "paragraph", "select", "number", "checkbox"),
        *("file", "file-list", "json_object"),
    ),
    label=_text("What the form calls it."),
    required=_flag("Whether a run needs it."),
    default={"description": "What it is if nothing is given."},
    max_length=_number("Characters of a text, files of a file-list."),
    options=_list("What a select offers.", {}),
)

_OUTPUT_TYPES: Final = (
    *("string", "number", "boolean", "object"),
    *("array[string]", "array[number]", "array[object]", "array[boolean]"),
)

_SOURCE: Final = _text("The source; `main` takes the variables and returns a mapping.")

NODE_KEYS: Final[dict[str, Schema]] = {
    "start": _object("Where a run begins, and what it asks for.", variables=_list("", _INPUT)),
    "end": _object(
        "What a workflow gives out.",
        outputs=_list(
            "Its outputs.",
            _object("One of them.", variable=_text("Its name."), value_selector=SELECTOR),
        ),
    ),
    "answer": _object("A piece of the answer.", answer=TEXT),
    "llm": _object(
        "Ask a model. Outputs: text, usage, structured_output.",
        "model",
        model=MODEL,
        prompt_template={
            "description": "The messages; for a completion model one {text: ...}.",
            "anyOf": [_list("Messages.", _PROMPT_MESSAGE), _PROMPT_MESSAGE],
        },
        memory=_MEMORY,
        context=_object(
            "What {{#context#}} in a prompt stands for.",
            enabled=_flag("Whether there is one."),
            variable_selector=SELECTOR,
        ),
        vision=_VISION,
        structured_output_enabled=_flag("Ask for JSON as `structured_output.schema` says."),
        structured_output=_object("The JSON Schema, under `schema`."),
        reasoning_format=_choice("Where thoughts go.", "tagged", "separated"),
    ),
    "knowledge-retrieval": _object(
        "Look up passages in knowledge bases. Output: result.",
        query_variable_selector=SELECTOR,
        dataset_ids=_list("The knowledge bases; bindings say which they are here.", {}),
        retrieval_mode=_choice("How bases are chosen.", "single", "multiple"),
        multiple_retrieval_config=_object(
            "How many passages.",
            top_k=_number("At most so many."),
            score_threshold=_number("At least so good, from 0 to 1."),
        ),
    ),
    "if-else": _object(
        "Choose a branch: edges leave by a case's id, or by false.",
        cases=_list(
            "Tried in order; the first that holds is taken.",
            _object(
                "One case.",
                case_id={"description": "The handle of its edges.", "type": ["string", "boolean"]},
                logical_operator=_LOGIC,
                conditions=_CONDITIONS,
            ),
        ),
    ),
    "code": _object(
        "Run a function `main`. Needs [code] enabled.",
        "code",
        code_language=_choice("The language.", "python3", "javascript"),
        code=_SOURCE,
        variables=_VARIABLES,
        outputs={
            "type": ["object", "null"],
            "description": "What `main` returns, by name.",
            "additionalProperties": _object(
                "One output.", type=_choice("Its type.", *_OUTPUT_TYPES)
            ),
        },
    ),
    "template-transform": _object(
        "Write a text by a Jinja2 template. Output: output.",
        template=_text("The template."),
        variables=_VARIABLES,
    ),
    "question-classifier": _object(
        "Let a model choose a class: edges leave by its id.",
        model=MODEL,
        query_variable_selector=SELECTOR,
        classes=_list(
            "The classes.",
            _object("One.", id={"description": "Its handle."}, name=_text("What it is.")),
        ),
        instruction=TEXT,
        memory=_MEMORY,
        vision=_VISION,
    ),
    "parameter-extractor": _object(
        "Let a model find values in a text; each is an output.",
        model=MODEL,
        query=SELECTOR,
        parameters=_list(
            "What to find.",
            _object(
                "One.",
                name=_text("Its name."),
                type=_choice("Its type.", *_OUTPUT_TYPES),
                description=_text("What it is, for the model."),
                required=_flag("Whether it must be found."),
            ),
        ),
        instruction=TEXT,
        reasoning_mode=_choice("How the model is asked.", "function_call", "prompt"),
    ),
    "http-request": _object(
        "Ask a web server. Outputs: status_code, body, headers, files.",
        method=_choice("", *("get", "post", "put", "patch", "delete", "head")),
        url=TEXT,
        headers=_text("A `name: value` in each line."),
        params=_text("A `name: value` in each line."),
        authorization=_object(
            "Who asks.",
            type=_choice("", "no-auth", "api-key"),
            config=_object("type (bearer, basic, custom), api_key, header."),
        ),
        body={
            "description": "What is sent: {type, data}.",
            "anyOf": [
                _object(
                    "The body.",
                    type=_choice(
                        "",
                        *("none", "form-data", "x-www-form-urlencoded"),
                        *("raw-text", "json", "binary"),
                    ),
                    data={"description": "Fields: [{key, type, value}], or one text."},
                ),
                {"type": "string"},
            ],
        },
        timeout=_object("Seconds: connect, read, write."),
        ssl_verify=_flag("Whether its certificate must be good; true unless told."),
    ),
    "tool": _object(
        "Call a tool. Outputs: text, files, json.",
        "tool_name",
        provider_type=_choice("", "builtin", "plugin", "api", "workflow", "mcp"),
        provider_id=_text("Such as time, or langgenius/tavily/tavily."),
        tool_name=_text("Such as current_time."),
        tool_parameters={
            "type": ["object", "null"],
            "description": "By name: {type: mixed|variable|constant, value}.",
        },
        tool_configurations=_object("Settings that are the same in all runs."),
    ),
    "agent": _object(
        "A model that works with tools until it has an answer. Outputs: text, files, json.",
        agent_strategy_name=_choice("How it works.", "function_calling", "ReAct"),
        agent_parameters=_object(
            "model, query, instruction, tools, maximum_iterations: each {type, value}."
        ),
        memory=_MEMORY,
    ),
    "iteration": _object(
        "Run the nodes inside for each item of a list. Output: output.",
        iterator_selector=SELECTOR,
        output_selector=SELECTOR,
        start_node_id=_text("The node inside that a round begins with."),
        is_parallel=_flag("Whether rounds run side by side."),
        parallel_nums=_number("How many at once."),
        error_handle_mode=_choice(
            "When a round fails.", "terminated", "continue-on-error", "remove-abnormal-output"
        ),
        flatten_output=_flag("Whether lists of lists become one list; true unless told."),
    ),
    "loop": _object(
        "Run the nodes inside again and again.",
        start_node_id=_text("The node inside that a round begins with."),
        loop_count=_number("At most so many rounds."),
        break_conditions=_CONDITIONS,
        logical_operator=_LOGIC,
        loop_variables=_list(
            "Variables of the loop, which assigners inside may set.",
            _object(
                "One.",
                label=_text("Its name."),
                var_type=_choice("Its type.", *_OUTPUT_TYPES),
                value_type=_choice("", "constant", "variable"),
            ),
        ),
    ),
    "variable-aggregator": _object(
        "The first of several variables that has a value. Output: output.",
        variables=_list("In order.", SELECTOR),
        output_type=_choice("", *_OUTPUT_TYPES),
        advanced_settings=_object("Groups, each with an output of its own."),
    ),
    "assigner": _object(
        "Set conversation variables, or variables of the loop around it.",
        version=_choice("", "1", "2"),
        items=_list(
            "What to set, in order.",
            _object(
                "One.",
                variable_selector=SELECTOR,
                operation=_choice(
                    "What to do with it.",
                    *("over-write", "clear", "append", "extend", "set"),
                    *("+=", "-=", "*=", "/=", "remove-first", "remove-last"),
                ),
                input_type=_choice("", "variable", "constant"),
                value={"description": "A selector, or the value itself."},
            ),
        ),
    ),
    "list-operator": _object(
        "Filter, order and cut a list. Outputs: result, first_record, last_record.",
        variable=SELECTOR,
        filter_by=_object("enabled, conditions[{key, comparison_operator, value}]."),
        extract_by=_object("enabled, serial: the item of this number, from 1."),
        order_by=_object("enabled, key, value: asc or desc."),
        limit=_object("enabled, size."),
    ),
    "document-extractor": _object(
        "The text of documents. Output: text.", variable_selector=SELECTOR
    ),
    "human-input": _object(
        "Ask a person, and wait. Edges leave by an action's id, or by __timeout.",
        form_content=TEXT,
        inputs=_list("Fields of the form.", _object("type, output_variable_name, default.")),
        user_actions=_list("The buttons.", _object("id, title.")),
        timeout=_number("How long to wait."),
        timeout_unit=_choice("", "hour", "day"),
    ),
    "trigger-webhook": _object("A run begins when somebody calls a URL."),
    "trigger-schedule": _object("A run begins at set times."),
}
"""The common keys of each type's `data`."""
