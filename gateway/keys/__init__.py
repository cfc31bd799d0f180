"""The gateway's keys: who signs what. Login keys are not grant keys; neither is the device root."""
