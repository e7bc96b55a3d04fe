"""The tools that runs may use: native ones, OpenAPI documents, MCP servers, workflows, plugins.

toolbox         `Toolbox`, which is `services.Tools`
bindings        what the operator says of a tool or a provider
native          the tools that come with Triolet, one module per provider
openapi         a document to operations; openapi_calls: an operation as a tool
mcp             servers of the Model Context Protocol, over HTTP
workflow_tools  other apps as tools
plugins         what installed packages add
"""
