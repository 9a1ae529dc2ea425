"""The messages between the Functions host and a Python worker, as far as the test host needs them.

They are protobuf messages made at run time from the table below, without a .proto file or a
compiler. Each is sent through its wire format, so what could not be sent in Azure fails here, too.

A field reads ``name=number:type``. ``*`` before the type makes it repeated, ``type@group`` puts it
into a oneof, and ``map<T>`` is a map from strings. Names and numbers are those of Azure's protocol.
"""

from types import SimpleNamespace
from typing import TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "AzureFunctionsRpcMessages"

ENUMS = {
    "StatusResult.Status": "Failure Success Cancelled",
    "BindingInfo.Direction": "in out inout",
    "BindingInfo.DataType": "undefined string binary stream",
}

MESSAGES = {
    # The host asks
    "WorkerInitRequest": "host_version=1:string capabilities=2:map<string>"
    " function_app_directory=5:string",
    "FunctionsMetadataRequest": "function_app_directory=1:string",
    "FunctionLoadRequest": "function_id=1:string metadata=2:RpcFunctionMetadata",
    "InvocationRequest": "invocation_id=1:string function_id=2:string"
    " input_data=3:*ParameterBinding trigger_metadata=4:map<TypedData>"
    " trace_context=5:RpcTraceContext retry_context=6:RetryContext",
    "RpcTraceContext": "trace_parent=1:string trace_state=2:string attributes=3:map<string>",
    "RetryContext": "retry_count=1:int32 max_retry_count=2:int32 exception=3:RpcException",
    # The worker answers
    "WorkerInitResponse": "capabilities=2:map<string> result=3:StatusResult"
    " worker_metadata=4:WorkerMetadata",
    "WorkerMetadata": "runtime_name=1:string runtime_version=2:string worker_version=3:string"
    " worker_bitness=4:string custom_properties=5:map<string>",
    "FunctionMetadataResponse": "function_metadata_results=1:*RpcFunctionMetadata"
    " result=2:StatusResult use_default_metadata_indexing=3:bool",
    "FunctionLoadResponse": "function_id=1:string result=2:StatusResult",
    "InvocationResponse": "invocation_id=1:string output_data=2:*ParameterBinding"
    " result=3:StatusResult return_value=4:TypedData",
    # Both use
    "StatusResult": "result=1:string exception=2:RpcException status=4:StatusResult.Status",
    "RpcException": "stack_trace=1:string message=2:string source=3:string"
    " is_user_exception=4:bool type=5:string",
    "RpcFunctionMetadata": "directory=1:string script_file=2:string entry_point=3:string"
    " name=4:string bindings=6:map<BindingInfo> is_proxy=7:bool language=9:string"
    " raw_bindings=10:*string function_id=13:string managed_dependency_enabled=14:bool"
    " retry_options=15:RpcRetryOptions properties=16:map<string>",
    "RpcRetryOptions": "max_retry_count=2:int32",
    "BindingInfo": "type=2:string direction=3:BindingInfo.Direction"
    " data_type=4:BindingInfo.DataType",
    "ParameterBinding": "name=1:string data=2:TypedData@rpc_data",
    "TypedData": "string=1:string@data json=2:string@data bytes=3:bytes@data http=5:RpcHttp@data"
    " int=6:sint64@data double=7:double@data",
    "RpcHttp": "method=1:string url=2:string headers=3:map<string> body=4:TypedData"
    " params=10:map<string> status_code=12:string query=15:map<string>"
    " enable_content_negotiation=16:bool cookies=19:*RpcHttpCookie",
    "RpcHttpCookie": "name=1:string value=2:string",
    # The envelope of what the host asks
    "StreamingMessage": "request_id=1:string worker_init_request=17:WorkerInitRequest@content"
    " functions_metadata_request=29:FunctionsMetadataRequest@content"
    " function_load_request=8:FunctionLoadRequest@content"
    " invocation_request=4:InvocationRequest@content",
}

SCALARS = ("string", "bytes", "bool", "double", "int32", "sint64")

Field: TypeAlias = descriptor_pb2.FieldDescriptorProto


def worker_messages() -> SimpleNamespace:
    """Return the message classes by name, as the worker takes them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="worker_messages.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for enum_name, values in ENUMS.items():
            if enum_name.startswith(f"{name}."):
                enum = message.enum_type.add(name=enum_name.partition(".")[2])
                for number, value in enumerate(values.split()):
                    enum.value.add(name=value, number=number)
        for field in fields.split():
            _add_field(message, field)
    pool = descriptor_pool.DescriptorPool()  # of our own: other packages may know these names
    pool.AddSerializedFile(file.SerializeToString())
    find = pool.FindMessageTypeByName
    classes = {n: message_factory.GetMessageClass(find(f"{PACKAGE}.{n}")) for n in MESSAGES}
    return SimpleNamespace(**classes)


def _add_field(message: descriptor_pb2.DescriptorProto, text: str) -> None:
    name, _, rest = text.partition("=")
    number, _, rest = rest.partition(":")
    kind, _, group = rest.partition("@")
    field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
    if kind.startswith("map<"):  # on the wire, repeated entries of a key and a value
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        key = entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL)
        _set_type(key, "string")
        value = entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL)
        _set_type(value, kind.removeprefix("map<").removesuffix(">"))
        kind = f"*{message.name}.{entry.name}"
    if kind.startswith("*"):
        field.label = Field.LABEL_REPEATED
    _set_type(field, kind.removeprefix("*"))
    if group:
        groups = [each.name for each in message.oneof_decl]
        if group not in groups:
            message.oneof_decl.add(name=group)
            groups.append(group)
        field.oneof_index = groups.index(group)


def _set_type(field: Field, kind: str) -> None:
    if kind in SCALARS:
        field.type = getattr(Field, f"TYPE_{kind.upper()}")
    else:
        field.type = Field.TYPE_ENUM if kind in ENUMS else Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
