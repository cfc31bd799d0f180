"""The dashboard's page, run by Streamlit in its own environment."""

import hashlib
import importlib
from typing import Any

st: Any = importlib.import_module("streamlit")  # lives in the dashboard's environment alone

st.title("Boiler")
target = st.number_input("Target", value=40, step=1)
st.write(f"Flow temperature {target + 15} °C")
firmware = st.file_uploader("Firmware")
if firmware is not None:
    content = firmware.getvalue()
    st.write(f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
st.download_button("Save", b"0123456789" * 100, "readings.csv")
