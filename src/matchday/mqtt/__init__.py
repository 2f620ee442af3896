"""MQTT 3.1.1 and 5: codec, the session with a broker, and the endpoint for sensors."""
