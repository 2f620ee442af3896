"""From messages to readings in the stream: adapters, gate, identity and the bridge.

The first hop. It acknowledges a message only after its fate (accepted, duplicate or
refused) is durable in the stream.
"""
