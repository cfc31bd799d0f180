"""The devices' side: their WebSocket listener, who they are, and which tunnels are open."""
