"""When a concept becomes decodable, and when it stops getting better."""
